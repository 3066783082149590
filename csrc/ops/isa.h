#pragma once

#include <string>

#include "core/types.h"

namespace exp3rt {

// Instruction sets in rising order; each includes the ones before it.
enum class Isa { kNone, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx };

// What this machine has and the library uses. The environment variable EXP3RT_TRT_ISA lowers it (read once).
Isa cpu_isa();
std::string to_string(Isa isa);
Isa parse_isa(const std::string& name);  // throws std::invalid_argument

// What products of `stored` weights are computed in: the same where the machine multiplies it, else fp32.
DataType compute_type(DataType stored);

}  // namespace exp3rt
