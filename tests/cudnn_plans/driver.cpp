// A driver with no device behind it, as far as cuDNN asks one while it plans: it takes the kernels that cuDNN has compiled, and
// starts none. Loaded in place of libcuda.so.1 by this test's program alone; the CUDA runtime is told that there is no GPU.
#include <cuda.h>

namespace {
int kernels;  // its address stands for whatever was taken
}

extern "C" {

CUresult cuInit(unsigned) { return CUDA_ERROR_NO_DEVICE; }

CUresult cuDeviceGetCount(int* count) {
  *count = 0;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult, const char** words) {
  *words = "told by tests/cudnn_plans/driver.cpp";
  return CUDA_SUCCESS;
}

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
  if (code == nullptr) return CUDA_ERROR_INVALID_IMAGE;
  *library = reinterpret_cast<CUlibrary>(&kernels);
  return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary, const char*) {
  *kernel = reinterpret_cast<CUkernel>(&kernels);
  return CUDA_SUCCESS;
}

CUresult cuLibraryUnload(CUlibrary) { return CUDA_SUCCESS; }
}
