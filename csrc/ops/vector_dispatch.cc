#include "ops/attention_kernels.h"
#include "ops/isa.h"
#include "ops/vector_kernels.h"

namespace exp3rt {

extern const VectorKernels vector_kernels_avx2;
extern const VectorKernels vector_kernels_avx512;
extern const VectorKernels vector_kernels_avx512_bf16;

const VectorKernels& vector_kernels() {
  static const VectorKernels& best = cpu_isa() >= Isa::kAvx512Bf16 ? vector_kernels_avx512_bf16
                                     : cpu_isa() >= Isa::kAvx512   ? vector_kernels_avx512
                                                                   : vector_kernels_avx2;
  return best;
}

extern const AttentionKernel attention_kernel_avx2;
extern const AttentionKernel attention_kernel_avx512;
extern const AttentionKernel attention_kernel_avx512_bf16;

AttentionKernel attention_kernel(DataType dtype) {
  if (dtype == DataType::kBFloat16) return attention_kernel_avx512_bf16;
  return cpu_isa() >= Isa::kAvx512 ? attention_kernel_avx512 : attention_kernel_avx2;
}

}  // namespace exp3rt
