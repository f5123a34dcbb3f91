#define SMLP_KERNELS kernels_avx512
#define SMLP_KERNELS_NAME "avx512"
#include "tensor/cpu/kernels.inc"
