#include "ops/matmul.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/isa.h"

namespace exp3rt {
namespace {

using dnnl::memory;

constexpr std::array kRowCounts = {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256};
static_assert(kRowCounts.back() == MatMul::kMaxRows);

std::size_t row_bucket(int rows) {
  const auto found = std::lower_bound(kRowCounts.begin(), kRowCounts.end(), rows);
  if (rows < 1 || found == kRowCounts.end()) throw std::invalid_argument("matmul: " + std::to_string(rows) + " rows");
  return static_cast<std::size_t>(found - kRowCounts.begin());
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

struct Kernel {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
};

// The library's own scratchpad is one per primitive, which threads cannot share; this is one per thread.
void* scratchpad(std::size_t size) {
  thread_local std::vector<std::byte> buffer;
  if (buffer.size() < size + 64) buffer.resize(size + 64);
  const auto address = reinterpret_cast<std::uintptr_t>(buffer.data());
  return reinterpret_cast<void*>((address + 63) / 64 * 64);
}

void run(const Kernel& kernel, const void* x, const void* b, float* y) {
  thread_local dnnl::stream stream(cpu());
  const auto& desc = kernel.desc;
  const auto scratch = desc.scratchpad_desc();
  kernel.primitive.execute(stream, {{DNNL_ARG_SRC, memory(desc.src_desc(), cpu(), const_cast<void*>(x))},
                                    {DNNL_ARG_WEIGHTS, memory(desc.weights_desc(), cpu(), const_cast<void*>(b))},
                                    {DNNL_ARG_DST, memory(desc.dst_desc(), cpu(), y)},
                                    {DNNL_ARG_SCRATCHPAD, memory(scratch, cpu(), scratchpad(scratch.get_size()))}});
}

}  // namespace

struct MatMul::Impl {
  DataType dtype;
  std::int64_t k;
  std::int64_t n;
  bool blocked;  // the kernels read the packed layout whole; if not (AVX2), a plain product for each panel
  mutable std::array<std::once_flag, kRowCounts.size()> once;
  mutable std::array<Kernel, kRowCounts.size()> kernels;
  mutable std::array<Kernel, kRowCounts.size()> last_panel_kernels;  // for n % 64, when not blocked

  Kernel make(std::int64_t rows, std::int64_t columns, bool packed) const {
    const bool bf16 = dtype == DataType::kBFloat16;
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::desc x({rows, k}, type, memory::dims{k, 1});
    const memory::desc y({rows, columns}, memory::data_type::f32, memory::dims{n, 1});
    const auto tag = bf16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b;
    const memory::desc b = packed ? memory::desc({k, columns}, type, tag)
                                  : memory::desc({k, columns}, type, memory::dims{kPanelColumns, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc desc(cpu(), x, b, y, attributes);
    return {desc, dnnl::matmul(desc)};
  }

  std::size_t prepare(int rows) const {
    const std::size_t bucket = row_bucket(rows);
    std::call_once(once[bucket], [&] {
      const auto count = kRowCounts[bucket];
      kernels[bucket] = blocked ? make(count, n, true) : make(count, std::min(n, kPanelColumns), false);
      const std::int64_t rest = n % kPanelColumns;
      if (!blocked && rest != 0) last_panel_kernels[bucket] = make(count, rest, false);
    });
    return bucket;
  }
};

MatMul::MatMul(DataType dtype, std::int64_t k, std::int64_t n) : impl_(std::make_unique<Impl>()) {
  if (dtype == DataType::kBFloat16 && cpu_isa() < Isa::kAvx512Bf16) {
    throw std::invalid_argument("matmul: this machine does not multiply bf16");
  }
  impl_->dtype = dtype;
  impl_->k = k;
  impl_->n = n;
  impl_->blocked = cpu_isa() >= Isa::kAvx512;
}

MatMul::~MatMul() = default;
MatMul::MatMul(MatMul&&) noexcept = default;

int MatMul::padded_row_count(int rows) { return kRowCounts[row_bucket(rows)]; }

void MatMul::operator()(const void* x, const PackedMatrix& b, float* y, int rows) const {
  if (b.n != impl_->n || b.k != impl_->k || b.dtype != impl_->dtype)
    throw std::invalid_argument("matmul: wrong operand");
  const SingleThreaded guard;
  const std::size_t bucket = impl_->prepare(rows);
  if (impl_->blocked) return run(impl_->kernels[bucket], x, b.data, y);
  for (std::int64_t p = 0; p < b.num_panels(); ++p) {
    const PackedMatrix panel = b.panels(p, 1);
    const bool whole = panel.n == std::min(impl_->n, kPanelColumns);
    run(whole ? impl_->kernels[bucket] : impl_->last_panel_kernels[bucket], x, panel.data, y + p * kPanelColumns);
  }
}

}  // namespace exp3rt
