#include "ops/matmul.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <vector>

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
static_assert(kRowCounts.back() == MatMul::kMaxRows && kAvx2RowCounts.back() == MatMul::kMaxRows);

const std::array<int, kNumRowCounts>& row_counts() { return cpu_isa() >= Isa::kAvx512 ? kRowCounts : kAvx2RowCounts; }

std::size_t row_bucket(int rows) {
  const auto& counts = row_counts();
  const auto found = std::lower_bound(counts.begin(), counts.end(), rows);
  if (rows < 1 || found == counts.end()) throw std::invalid_argument("matmul: " + std::to_string(rows) + " rows");
  return static_cast<std::size_t>(found - counts.begin());
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

// A product of fixed shape, and what a thread needs to run it. Memory objects are dear to make and cheap to point
// elsewhere, so every thread keeps its own for each kernel.
class Kernel {
 public:
  Kernel() = default;
  Kernel(const memory::desc& x, const memory::desc& b, const memory::desc& y) : id_(next_id++) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    desc_ = dnnl::matmul::primitive_desc(cpu(), x, b, y, attributes);
    primitive_ = dnnl::matmul(desc_);
  }

  void run(const void* x, const void* b, void* y) const {
    thread_local dnnl::stream stream(cpu());
    Arguments& arguments = this_threads_arguments();
    arguments.point_to(x, b, y);
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive_.get(), stream.get(),
                                                   static_cast<int>(arguments.list.size()), arguments.list.data()),
                            "matmul: the product failed");
  }

 private:
  struct Arguments {
    explicit Arguments(const dnnl::matmul::primitive_desc& desc)
        : x(desc.src_desc(), cpu(), nullptr),
          b(desc.weights_desc(), cpu(), nullptr),
          y(desc.dst_desc(), cpu(), nullptr),
          scratchpad(desc.scratchpad_desc(), cpu(), nullptr),
          scratchpad_size(desc.scratchpad_desc().get_size()),
          list{{{DNNL_ARG_SRC, x.get()},
                {DNNL_ARG_WEIGHTS, b.get()},
                {DNNL_ARG_DST, y.get()},
                {DNNL_ARG_SCRATCHPAD, scratchpad.get()}}} {}

    void point_to(const void* new_x, const void* new_b, void* new_y) {
      x.set_data_handle(const_cast<void*>(new_x));
      b.set_data_handle(const_cast<void*>(new_b));
      y.set_data_handle(new_y);
      scratchpad.set_data_handle(thread_scratchpad(scratchpad_size));
    }

    memory x, b, y, scratchpad;
    std::size_t scratchpad_size;
    std::array<dnnl_exec_arg_t, 4> list;
  };

  Arguments& this_threads_arguments() const {
    thread_local std::vector<std::unique_ptr<Arguments>> all;
    if (all.size() <= id_) all.resize(id_ + 1);
    if (!all[id_]) all[id_] = std::make_unique<Arguments>(desc_);
    return *all[id_];
  }

  static inline std::atomic<std::size_t> next_id = 0;

  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul primitive_;
  std::size_t id_ = 0;
};

}  // namespace

struct MatMul::Impl {
  DataType dtype;
  std::int64_t k;
  std::int64_t n;
  bool blocked;  // the kernels read the packed layout whole; if not (AVX2), a plain product for each panel
  mutable std::array<std::once_flag, kNumRowCounts> once;
  mutable std::array<Kernel, kNumRowCounts> kernels;
  mutable std::array<Kernel, kNumRowCounts> last_panel_kernels;  // for n % 64, when not blocked

  Kernel make(std::int64_t rows, std::int64_t columns, bool packed) const {
    const Types types = types_of(dtype);
    const memory::desc x({rows, k}, types.x, memory::dims{k, 1});
    const memory::desc y({rows, columns}, types.y, memory::dims{n, 1});
    const memory::desc b = packed ? memory::desc({k, columns}, types.b, types.packed)
                                  : memory::desc({k, columns}, types.b, memory::dims{kPanelColumns, 1});
    return {x, b, y};
  }

  std::size_t prepare(int rows) const {
    const std::size_t bucket = row_bucket(rows);
    std::call_once(once[bucket], [&] {
      const auto count = row_counts()[bucket];
      kernels[bucket] = blocked ? make(count, n, true) : make(count, std::min(n, kPanelColumns), false);
      const std::int64_t rest = n % kPanelColumns;
      if (!blocked && rest != 0) last_panel_kernels[bucket] = make(count, rest, false);
    });
    return bucket;
  }
};

MatMul::MatMul(DataType dtype, std::int64_t k, std::int64_t n) : impl_(std::make_unique<Impl>()) {
  if (compute_type(dtype) != dtype) throw std::invalid_argument("matmul: this machine does not multiply this type");
  impl_->dtype = dtype;
  impl_->k = k;
  impl_->n = n;
  impl_->blocked = cpu_isa() >= Isa::kAvx512;
}

MatMul::~MatMul() = default;
MatMul::MatMul(MatMul&&) noexcept = default;

int MatMul::padded_row_count(int rows) { return row_counts()[row_bucket(rows)]; }

void MatMul::operator()(const void* x, const PackedMatrix& b, void* y, int rows) const {
  if (b.n != impl_->n || b.k != impl_->k || b.dtype != impl_->dtype)
    throw std::invalid_argument("matmul: wrong operand");
  const SingleThreaded guard;
  const std::size_t bucket = impl_->prepare(rows);
  if (impl_->blocked) return impl_->kernels[bucket].run(x, b.data, y);
  for (std::int64_t p = 0; p < b.num_panels(); ++p) {
    const PackedMatrix panel = b.panels(p, 1);
    const bool whole = panel.n == std::min(impl_->n, kPanelColumns);
    const Kernel& kernel = whole ? impl_->kernels[bucket] : impl_->last_panel_kernels[bucket];
    kernel.run(x, panel.data, static_cast<float*>(y) + p * kPanelColumns);
  }
}

}  // namespace exp3rt
