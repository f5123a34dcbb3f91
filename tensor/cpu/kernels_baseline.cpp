#define SMLP_KERNELS kernels_baseline
#define SMLP_KERNELS_NAME "baseline"
#include "tensor/cpu/kernels.inc"
