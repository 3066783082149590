#include "ops/matmul.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <span>
#include <stdexcept>
#include <string>

#include "ops/aligned_buffer.h"
#include "ops/isa.h"
#include "ops/store.h"
#include "ops/tiles.h"
#include "ops/vector_kernels.h"

namespace exp3rt {
namespace {

using dnnl::memory;

// Kernels are made for these numbers of rows. AVX2's handle six rows at a time; two rows left over go through code that
// adds in another order, so there the counts leave none or four.
constexpr std::array kRowCounts = {1,  2,  4,  8,  12,  16,  20,  24,  28,  32,  40,  48,  56,  64,
                                   72, 80, 88, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512, 640};
constexpr std::array kAvx2RowCounts = {4,  6,  10, 12, 16,  18,  22,  24,  28,  30,  36,  40,  48,  54,
                                       60, 64, 72, 84, 112, 132, 160, 192, 228, 256, 324, 384, 516, 640};
static_assert(kRowCounts.back() >= kMaxProductRows && kAvx2RowCounts.back() >= kMaxProductRows);

std::span<const int> row_counts() {
  if (cpu_isa() >= Isa::kAvx512) return kRowCounts;
  return kAvx2RowCounts;
}

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// While this lives, oneDNN plans and runs on the calling thread alone, inside or outside a parallel region.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(before_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

struct Types {
  memory::data_type x, b, y;
  memory::format_tag packed;
};

Types types_of(DataType dtype) {
  using Type = memory::data_type;
  switch (dtype) {
    case DataType::kFloat32: return {Type::f32, Type::f32, Type::f32, memory::format_tag::BA16a64b};
    case DataType::kBFloat16: return {Type::bf16, Type::bf16, Type::f32, memory::format_tag::BA16a64b2a};
    case DataType::kInt8: return {Type::u8, Type::s8, Type::s32, memory::format_tag::BA16a64b4a};
  }
  throw std::invalid_argument("matmul: unknown type");
}

// The library's own scratchpad is one per primitive, which threads cannot share; this is one per thread.
std::byte* thread_scratchpad(std::size_t size) {
  thread_local AlignedBuffer buffer;
  return buffer.get<std::byte>(size);
}

struct Shape {
  DataType dtype;
  std::int64_t k, columns, stride;  // of y's rows
  int rows;
  auto operator<=>(const Shape&) const = default;
};

// AVX-512's kernels read the packed layout whole; AVX2's do not, and take a panel as a plain matrix.
bool reads_packed() { return cpu_isa() >= Isa::kAvx512; }

dnnl::matmul::primitive_desc describe(const Shape& shape) {
  const Types types = types_of(shape.dtype);
  const memory::desc x({shape.rows, shape.k}, types.x, memory::dims{shape.k, 1});
  const memory::desc y({shape.rows, shape.columns}, types.y, memory::dims{shape.stride, 1});
  const memory::desc b = reads_packed()
                             ? memory::desc({shape.k, shape.columns}, types.b, types.packed)
                             : memory::desc({shape.k, shape.columns}, types.b, memory::dims{kPanelColumns, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return {cpu(), x, b, y, attributes};
}

// The kernel of a shape, made once for all threads.
const dnnl::matmul& kernel(const Shape& shape) {
  static std::mutex mutex;
  static std::map<Shape, dnnl::matmul> kernels;
  const std::lock_guard lock(mutex);
  const auto found = kernels.find(shape);
  if (found != kernels.end()) return found->second;
  return kernels.emplace(shape, dnnl::matmul(describe(shape))).first->second;
}

// A kernel and what one thread needs to run it. Memory objects are dear to make and cheap to point elsewhere, so every
// thread keeps its own for each kernel.
class Product {
 public:
  explicit Product(const Shape& shape) : Product(kernel(shape), describe(shape)) {}
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  void run(const void* x, const void* b, void* y) {
    thread_local dnnl::stream stream(cpu());
    x_.set_data_handle(const_cast<void*>(x));
    b_.set_data_handle(const_cast<void*>(b));
    y_.set_data_handle(y);
    scratchpad_.set_data_handle(thread_scratchpad(scratchpad_size_));
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(kernel_.get(), stream.get(), static_cast<int>(arguments_.size()), arguments_.data()),
        "matmul: the product failed");
  }

 private:
  Product(const dnnl::matmul& kernel, const dnnl::matmul::primitive_desc& desc)
      : kernel_(kernel),
        x_(desc.src_desc(), cpu(), nullptr),
        b_(desc.weights_desc(), cpu(), nullptr),
        y_(desc.dst_desc(), cpu(), nullptr),
        scratchpad_(desc.scratchpad_desc(), cpu(), nullptr),
        scratchpad_size_(desc.scratchpad_desc().get_size()),
        arguments_{{{DNNL_ARG_SRC, x_.get()},
                    {DNNL_ARG_WEIGHTS, b_.get()},
                    {DNNL_ARG_DST, y_.get()},
                    {DNNL_ARG_SCRATCHPAD, scratchpad_.get()}}} {}

  const dnnl::matmul& kernel_;
  memory x_, b_, y_, scratchpad_;
  std::size_t scratchpad_size_;
  std::array<dnnl_exec_arg_t, 4> arguments_;
};

Product& this_threads_product(const Shape& shape) {
  thread_local std::map<Shape, Product> products;
  return products.try_emplace(shape, shape).first->second;
}

// Where the library reads the packed layout, it adds in another order if the rows of y do not lie side by side.
void multiply_by_library(const void* x, const PackedMatrix& b, void* y, std::int64_t stride, int rows) {
  const SingleThreaded guard;
  const int padded = padded_row_count(b.dtype, rows);
  if (reads_packed()) return this_threads_product({b.dtype, b.k, b.n, stride, padded}).run(x, b.data, y);
  for (std::int64_t p = 0; p < b.num_panels(); ++p) {
    const PackedMatrix panel = b.panels(p, 1);
    this_threads_product({b.dtype, b.k, panel.n, stride, padded})
        .run(x, panel.data, static_cast<float*>(y) + p * kPanelColumns);
  }
}

// Panels that are whole go straight to y; of one that is not, the columns that there are.
void multiply_by_tiles(const void* x, const PackedMatrix& b, void* y, std::int64_t stride, int rows) {
  const int row_tiles = static_cast<int>(ceil_div(rows, kTileRows));
  const int steps = static_cast<int>(tile_steps(static_cast<std::size_t>(b.k) * size_of(b.dtype)));
  const std::int64_t whole = b.n / kPanelColumns;
  TileProduct product{b.dtype, row_tiles, steps, static_cast<int>(whole), x, b.data, y, stride};
  multiply_tiles(product);
  const std::int64_t rest = b.n % kPanelColumns;
  if (rest == 0) return;
  thread_local AlignedBuffer buffer;
  auto* sums = buffer.get<std::int32_t>(static_cast<std::size_t>(row_tiles * kTileRows) * kPanelColumns);
  product.panels = 1;
  product.b = b.panels(whole, 1).data;
  product.y = sums;
  product.stride = kPanelColumns;
  multiply_tiles(product);
  auto* to = static_cast<std::int32_t*>(y) + whole * kPanelColumns;
  for (int row = 0; row < rows; ++row) std::copy_n(sums + row * kPanelColumns, rest, to + row * stride);
}

}  // namespace

bool takes_tiles(DataType dtype) { return dtype != DataType::kFloat32 && cpu_isa() >= Isa::kAmx; }

int padded_row_count(DataType dtype, int rows) {
  if (rows < 1 || rows > kMaxProductRows) throw std::invalid_argument("matmul: " + std::to_string(rows) + " rows");
  if (takes_tiles(dtype)) return static_cast<int>(round_up(rows, kTileRows));
  const std::span<const int> counts = row_counts();
  return *std::lower_bound(counts.begin(), counts.end(), rows);
}

std::int64_t result_stride(DataType dtype, std::int64_t columns) {
  constexpr std::int64_t kCacheLine = 16;  // numbers
  return takes_tiles(dtype) ? columns + kCacheLine : columns;
}

std::size_t operand_bytes(DataType dtype, int rows, std::int64_t k) {
  const std::size_t row_bytes = static_cast<std::size_t>(k) * size_of(dtype);
  const std::size_t stored_bytes = takes_tiles(dtype) ? tile_steps(row_bytes) * kTileDepth : row_bytes;
  return static_cast<std::size_t>(padded_row_count(dtype, rows)) * stored_bytes;
}

void place_row(DataType dtype, const void* from, int row, std::int64_t first, std::int64_t count, std::int64_t k,
               void* x) {
  const std::size_t element = size_of(dtype);
  const std::size_t at = static_cast<std::size_t>(first) * element, size = static_cast<std::size_t>(count) * element;
  const std::size_t row_bytes = static_cast<std::size_t>(k) * element;
  if (takes_tiles(dtype)) return place_in_tiles(from, row, at, size, tile_steps(row_bytes), x);
  std::memcpy(static_cast<std::byte*>(x) + static_cast<std::size_t>(row) * row_bytes + at, from, size);
}

void round_row(DataType dtype, const float* from, int row, std::int64_t first, std::int64_t count, std::int64_t k,
               void* x) {
  const std::size_t element = size_of(dtype);
  const std::size_t at = static_cast<std::size_t>(first) * element, row_bytes = static_cast<std::size_t>(k) * element;
  auto* bytes = static_cast<std::byte*>(x);
  if (takes_tiles(dtype)) {
    std::byte* to = bytes + offset_in_tiles(row, at, tile_steps(row_bytes));
    return vector_kernels().to_tiles(from, count, reinterpret_cast<bfloat16*>(to));
  }
  store(dtype, from, count, bytes + static_cast<std::size_t>(row) * row_bytes + at);
}

void matmul(const void* x, const PackedMatrix& b, void* y, std::int64_t stride, int rows) {
  if (compute_type(b.dtype) != b.dtype) throw std::invalid_argument("matmul: this machine does not multiply this type");
  if (takes_tiles(b.dtype)) return multiply_by_tiles(x, b, y, stride, rows);
  if (!reads_packed() || stride == b.n) return multiply_by_library(x, b, y, stride, rows);
  thread_local AlignedBuffer buffer;
  auto* dense = buffer.get<float>(static_cast<std::size_t>(padded_row_count(b.dtype, rows) * b.n));
  multiply_by_library(x, b, dense, b.n, rows);
  for (int row = 0; row < rows; ++row) std::copy_n(dense + row * b.n, b.n, static_cast<float*>(y) + row * stride);
}

}  // namespace exp3rt
