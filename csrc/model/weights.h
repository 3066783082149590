#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "core/types.h"
#include "ops/packed_matrix.h"

namespace exp3rt {

// A tensor of the engine's weights file, as its header tells.
struct TensorEntry {
  std::string name;
  DataType dtype;
  std::vector<std::int64_t> shape;
  std::size_t offset;  // bytes from the start of the file
  std::size_t num_bytes;
};

// The weights file, memory-mapped. Views stay valid as long as this lives. Every mismatch throws std::runtime_error naming the file and the tensor.
class Weights {
 public:
  Weights(const std::string& path, const std::vector<TensorEntry>& tensors);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // W[n, k], held as `dtype` or as int8; widened once to fp32 if this machine does not multiply what the file holds.
  PackedMatrix matrix(const std::string& name, std::int64_t n, std::int64_t k, DataType dtype);
  const float* vector(const std::string& name, std::int64_t n) const;
  const float* optional_vector(const std::string& name, std::int64_t n) const;  // null if there is none
  const std::byte* rows(const std::string& name, std::int64_t n, std::int64_t k, DataType dtype) const;

 private:
  const std::int32_t* offsets(const std::string& name, std::int64_t n);
  const std::byte* find(const std::string& name, DataType dtype, const std::vector<std::int64_t>& shape) const;

  std::string path_;
  MappedFile file_;
  std::map<std::string, TensorEntry> tensors_;
  std::vector<std::vector<float>> widened_;
  std::vector<std::vector<std::int32_t>> offsets_;
};

}  // namespace exp3rt
