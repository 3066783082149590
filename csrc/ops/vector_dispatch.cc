#include "ops/isa.h"
#include "ops/vector_kernels.h"

namespace exp3rt {

extern const VectorKernels vector_kernels_avx2;
extern const VectorKernels vector_kernels_avx512;

const VectorKernels& vector_kernels() {
  static const VectorKernels& best = cpu_isa() >= Isa::kAvx512 ? vector_kernels_avx512 : vector_kernels_avx2;
  return best;
}

}  // namespace exp3rt
