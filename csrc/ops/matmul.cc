#include "ops/matmul.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>

#include "ops/aligned_buffer.h"
#include "ops/isa.h"

namespace exp3rt {
namespace {

using dnnl::memory;

// Kernels are made for these numbers of rows. AVX2's handle six rows at a time; two rows left over go through code that
// adds in another order, so there the counts leave none or four.
constexpr std::array kRowCounts = {1,  2,  4,  8,  12, 16, 20,  24,  28,  32,  40,  48,
                                   56, 64, 72, 80, 88, 96, 112, 128, 160, 192, 224, 256};
constexpr std::array kAvx2RowCounts = {4,  6,  10, 12, 16, 18, 22,  24,  28,  30,  36,  40,
                                       48, 54, 60, 64, 72, 84, 112, 132, 160, 192, 228, 256};
constexpr std::size_t kNumRowCounts = kRowCounts.size();
static_assert(kAvx2RowCounts.size() == kNumRowCounts);
static_assert(kRowCounts.back() == kMaxProductRows && kAvx2RowCounts.back() == kMaxProductRows);

const std::array<int, kNumRowCounts>& row_counts() { return cpu_isa() >= Isa::kAvx512 ? kRowCounts : kAvx2RowCounts; }

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

}  // namespace

int padded_row_count(int rows) {
  const auto& counts = row_counts();
  const auto found = std::lower_bound(counts.begin(), counts.end(), rows);
  if (rows < 1 || found == counts.end()) throw std::invalid_argument("matmul: " + std::to_string(rows) + " rows");
  return *found;
}

void matmul(const void* x, const PackedMatrix& b, void* y, int rows) {
  if (compute_type(b.dtype) != b.dtype) throw std::invalid_argument("matmul: this machine does not multiply this type");
  const SingleThreaded guard;
  const int padded = padded_row_count(rows);
  if (reads_packed()) return this_threads_product({b.dtype, b.k, b.n, b.n, padded}).run(x, b.data, y);
  for (std::int64_t p = 0; p < b.num_panels(); ++p) {
    const PackedMatrix panel = b.panels(p, 1);
    this_threads_product({b.dtype, b.k, panel.n, b.n, padded})
        .run(x, panel.data, static_cast<float*>(y) + p * kPanelColumns);
  }
}

}  // namespace exp3rt
