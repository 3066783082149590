#include "ops/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>

namespace exp3rt {
namespace {

constexpr std::array kNames = {"none", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"};

dnnl::cpu_isa to_dnnl(Isa isa) {
  switch (isa) {
    case Isa::kNone: return dnnl::cpu_isa::sse41;
    case Isa::kAvx2: return dnnl::cpu_isa::avx2;
    case Isa::kAvx512: return dnnl::cpu_isa::avx512_core;
    case Isa::kAvx512Vnni: return dnnl::cpu_isa::avx512_core_vnni;
    case Isa::kAvx512Bf16: return dnnl::cpu_isa::avx512_core_bf16;
    case Isa::kAmx: return dnnl::cpu_isa::isa_default;
  }
  return dnnl::cpu_isa::isa_default;
}

Isa from_dnnl(dnnl::cpu_isa isa) {
  switch (isa) {
    case dnnl::cpu_isa::avx512_core_amx:
    case dnnl::cpu_isa::avx512_core_amx_fp16: return Isa::kAmx;
    case dnnl::cpu_isa::avx512_core_bf16:
    case dnnl::cpu_isa::avx512_core_fp16: return Isa::kAvx512Bf16;
    case dnnl::cpu_isa::avx512_core_vnni: return Isa::kAvx512Vnni;
    case dnnl::cpu_isa::avx512_core: return Isa::kAvx512;
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
    case dnnl::cpu_isa::avx2_vnni_2: return Isa::kAvx2;
    default: return Isa::kNone;
  }
}

// Linux hands out the tiles' registers to processes that ask for them.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Isa detect() {
  if (const char* limit = std::getenv("EXP3RT_TRT_ISA")) {
    dnnl::set_max_cpu_isa(to_dnnl(parse_isa(limit)));  // a no-op for more than the machine has
  }
  const Isa found = from_dnnl(dnnl::get_effective_cpu_isa());
  return found == Isa::kAmx && !may_use_tiles() ? Isa::kAvx512Bf16 : found;
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = detect();
  return isa;
}

std::string to_string(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

Isa parse_isa(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    throw std::invalid_argument("unknown ISA '" + name + "'; known: none, avx2, avx512, avx512_vnni, avx512_bf16, amx");
  }
  return static_cast<Isa>(found - kNames.begin());
}

DataType compute_type(DataType stored) {
  const Isa needed = stored == DataType::kBFloat16 ? Isa::kAvx512Bf16 : Isa::kAvx512Vnni;
  return cpu_isa() >= needed ? stored : DataType::kFloat32;
}

}  // namespace exp3rt
