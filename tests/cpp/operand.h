#pragma once

#include <random>
#include <vector>

#include "ops/aligned_buffer.h"
#include "ops/isa.h"
#include "ops/packed_matrix.h"
#include "ops/store.h"

namespace exp3rt {

// A random matrix [rows, columns] in fp32, rounded to what `dtype` can hold, beside the same in that type.
struct RandomMatrix {
  RandomMatrix(unsigned seed, int num_rows, int num_columns, DataType type)
      : rows(num_rows), columns(num_columns), dtype(type), values(static_cast<std::size_t>(num_rows * num_columns)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(random);
    stored = buffer.get<std::byte>((values.size() + 512 * static_cast<std::size_t>(columns)) * size_of(dtype));
    store(dtype, values.data(), static_cast<std::int64_t>(values.size()), stored);
    load(dtype, stored, static_cast<std::int64_t>(values.size()), values.data());
  }
  float at(int row, int column) const { return values[static_cast<std::size_t>(row * columns + column)]; }
  const std::byte* row(int index) const { return stored + static_cast<std::size_t>(index * columns) * size_of(dtype); }

  int rows, columns;
  DataType dtype;
  std::vector<float> values;
  AlignedBuffer buffer;
  std::byte* stored;
};

// W[n, k] packed.
struct PackedOperand {
  explicit PackedOperand(const RandomMatrix& w) : matrix{nullptr, w.rows, w.columns, w.dtype} {
    auto* memory = buffer.get<std::byte>(matrix.num_bytes());
    pack(w.values.data(), w.rows, w.columns, w.dtype, memory);
    matrix.data = memory;
  }
  AlignedBuffer buffer;
  PackedMatrix matrix;
};

// The types that this machine multiplies.
inline std::vector<DataType> product_types() {
  std::vector<DataType> types = {DataType::kFloat32};
  if (compute_type(DataType::kBFloat16) == DataType::kBFloat16) types.push_back(DataType::kBFloat16);
  return types;
}

}  // namespace exp3rt
