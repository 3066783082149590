#pragma once

#include <bit>
#include <cstdint>

namespace exp3rt {

using bfloat16 = std::uint16_t;  // storage only

// Round to nearest even; NaN stays NaN.
inline bfloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<bfloat16>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded);
}

inline float to_float(bfloat16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16); }

}  // namespace exp3rt
