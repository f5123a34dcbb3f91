#define SMLP_KERNELS kernels_avx2
#define SMLP_KERNELS_NAME "avx2"
#include "tensor/cpu/kernels.inc"
