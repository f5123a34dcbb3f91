// cuBLASLt on the host, by what its documentation says of descriptions, layouts, ends and alignment: what a description lacks,
// or an address does not keep, is refused. Of algorithms it offers several, also such as were not asked for.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/host_product.h"

struct cublasLtContext {};

struct cublasLtMatmulDescOpaque {
  cublasComputeType_t sums;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t end = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr, *aux = nullptr;
  std::int32_t bias_type = -1;
  std::int64_t bias_apart = 0, aux_leading = 0, aux_apart = 0;

  bool has(int what) const { return (end & what) != 0; }
};

struct cublasLtMatrixLayoutOpaque {
  cudaDataType_t type;
  std::int64_t rows, columns, leading;
  std::int32_t batch = 1;
  std::int64_t apart = 0;

  void* place(const void* data, std::int64_t i) const {
    return static_cast<char*>(const_cast<void*>(data)) + i * apart * smlp::emulation::bytes_of(type);
  }
};

struct cublasLtMatmulPreferenceOpaque {
  std::size_t workspace_bytes = 0;
  std::uint32_t ways_to_add_parts = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::array<std::uint32_t, 4> alignment = {256, 256, 256, 256};  // of a, b, c, d
};

namespace {

using smlp::emulation::HostProduct;
using Description = cublasLtMatmulDescOpaque;
using Layout = cublasLtMatrixLayoutOpaque;

constexpr std::size_t bytes_to_split = 1024;

template <class Value>
cublasStatus_t take(Value& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

bool on(const void* memory, std::int64_t bytes) { return reinterpret_cast<std::uintptr_t>(memory) % bytes == 0; }

struct Matrices {
  const Layout &a, &b, &c, &d;
};

bool fits(const Description& p, const Matrices& m) {
  const bool at = p.a == CUBLAS_OP_T, bt = p.b == CUBLAS_OP_T;
  const std::int64_t k = at ? m.a.rows : m.a.columns;
  const auto well_laid = [&](const Layout& l) { return l.leading >= l.rows && l.batch == m.d.batch; };
  return (at ? m.a.columns : m.a.rows) == m.d.rows && (bt ? m.b.rows : m.b.columns) == m.d.columns &&
         (bt ? m.b.columns : m.b.rows) == k && m.c.rows == m.d.rows && m.c.columns == m.d.columns && well_laid(m.a) &&
         well_laid(m.b) && well_laid(m.c) && well_laid(m.d);
}

cublasStatus_t judge_end(const Description& p, const Layout& d) {
  const auto type_is = [&](std::int32_t type) { return type == -1 || type == d.type; };
  if (p.has(CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_BGRADB)) {
    if (!p.bias) return CUBLAS_STATUS_INVALID_VALUE;
    if (!type_is(p.bias_type) || !on(p.bias, 16)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (p.has(128)) {
    const bool laid = p.aux_leading >= d.rows && p.aux_leading % 8 == 0 && p.aux_apart % 8 == 0;
    if (!p.aux || !laid || (d.batch > 1 && p.aux_apart == 0)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!on(p.aux, 16)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t judge(const Description& p, const Matrices& m) {
  if (!fits(p, m)) return CUBLAS_STATUS_INVALID_VALUE;
  const bool types = m.a.type == m.b.type && m.c.type == m.d.type && (m.d.type == m.a.type || m.d.type == CUDA_R_32F);
  const bool sums = p.sums == CUBLAS_COMPUTE_32F || (p.sums == CUBLAS_COMPUTE_32F_FAST_TF32 && m.a.type == CUDA_R_32F);
  return types && sums ? judge_end(p, m.d) : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasLtMatmulHeuristicResult_t offer(int number, int parts, const cublasLtMatmulPreferenceOpaque& preference) {
  cublasLtMatmulHeuristicResult_t made;
  made.algo.data[0] = static_cast<std::uint64_t>(number);
  made.algo.data[1] = static_cast<std::uint64_t>(parts);
  for (std::size_t i = 0; i < 4; ++i) made.algo.data[2 + i] = preference.alignment[i];
  made.workspaceSize = parts > 1 ? bytes_to_split : 0;
  return made;
}

// What the algorithm was chosen for: the address and, in a batch, the way from one matrix to the next.
bool keeps_alignment(const cublasLtMatmulAlgo_t& algorithm, std::size_t matrix, const void* memory, const Layout& layout) {
  const auto bytes = static_cast<std::int64_t>(algorithm.data[2 + matrix]);
  return on(memory, bytes) && (layout.batch == 1 || layout.apart * smlp::emulation::bytes_of(layout.type) % bytes == 0);
}

HostProduct product_of(const Description& p, const Matrices& m, int parts) {
  HostProduct made{.m = m.d.rows, .n = m.d.columns, .k = p.a == CUBLAS_OP_T ? m.a.rows : m.a.columns};
  made.a = {nullptr, m.a.type, m.a.leading};
  made.b = {nullptr, m.b.type, m.b.leading};
  made.c = {nullptr, m.c.type, m.c.leading};
  made.d = {nullptr, m.d.type, m.d.leading};
  made.aux = {nullptr, m.d.type, p.aux_leading};
  made.a_transposed = p.a == CUBLAS_OP_T;
  made.b_transposed = p.b == CUBLAS_OP_T;
  made.end = static_cast<std::uint32_t>(p.end);
  made.parts = parts;
  return made;
}

// By the rules of a test, whatever the library could do.
cublasStatus_t refusal(const cublasLtMatmulAlgo_t& algorithm, bool with_end, cudaStream_t stream) {
  const auto& refused = smlp::emulation::refusals();
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &capture);
  if (refused.recorded && capture != cudaStreamCaptureStatusNone) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (refused.for_memory) return CUBLAS_STATUS_ALLOC_FAILED;
  if (with_end ? refused.ends : refused.products) return CUBLAS_STATUS_NOT_SUPPORTED;
  return static_cast<int>(algorithm.data[0]) < refused.algorithms ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "a status of the emulation";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t sums, cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *made = new Description{.sums = sums};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t to, cublasLtMatmulDescAttributes_t what,
                                              const void* value, std::size_t bytes) {
  switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(to->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(to->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(to->end, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(to->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return take(to->bias_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return take(to->bias_apart, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return take(to->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return take(to->aux_leading, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE: return take(to->aux_apart, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  *made = new Layout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t to, cublasLtMatrixLayoutAttribute_t what,
                                                const void* value, std::size_t bytes) {
  return what == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? take(to->batch, value, bytes) : take(to->apart, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new cublasLtMatmulPreferenceOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t to, cublasLtMatmulPreferenceAttributes_t what,
                                                    const void* value, std::size_t bytes) {
  switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(to->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(to->ways_to_add_parts, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(to->alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(to->alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(to->alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(to->alignment[3], value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t, void* value, std::size_t bytes,
                                                    std::size_t* written) {
  const auto parts = static_cast<std::int32_t>(algorithm->data[1]);
  if (bytes != sizeof parts) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &parts, bytes);
  *written = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t offers[], int* count) {
  *count = 0;
  const cublasStatus_t status = judge(*description, {*a, *b, *c, *d});
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const auto& refused = smlp::emulation::refusals();
  const bool with_end = description->end != CUBLASLT_EPILOGUE_DEFAULT;
  if (refused.when_planned && (with_end ? refused.ends : refused.products)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool may_split = (preference->ways_to_add_parts & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0 &&
                         preference->workspace_bytes >= bytes_to_split;
  // The second one that splits comes unasked: a mask is for the library's search, and what it means by it is its own.
  for (const int parts : {may_split ? 3 : 1, 1, 2, 1, 1}) {
    if (*count < most) offers[*count] = offer(*count, parts, *preference), ++*count;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const Description& p = *description;
  const Matrices m{*a_layout, *b_layout, *c_layout, *d_layout};
  if (const auto status = judge(p, m); status != CUBLAS_STATUS_SUCCESS) return status;
  HostProduct product = product_of(p, m, static_cast<int>(algorithm->data[1]));
  product.alpha = *static_cast<const float*>(alpha);
  product.beta = *static_cast<const float*>(beta);
  const bool adds = product.beta != 0, with_end = p.end != CUBLASLT_EPILOGUE_DEFAULT || (adds && c != d);
  if (!keeps_alignment(*algorithm, 0, a, m.a) || !keeps_alignment(*algorithm, 1, b, m.b) ||
      (adds && !keeps_alignment(*algorithm, 2, c, m.c)) || !keeps_alignment(*algorithm, 3, d, m.d))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool splits = product.parts > 1;
  if (splits && (!workspace || workspace_bytes < bytes_to_split)) return CUBLAS_STATUS_INVALID_VALUE;
  if (const auto status = refusal(*algorithm, with_end, stream); status != CUBLAS_STATUS_SUCCESS) return status;

  const bool taken = smlp::emulation::enqueue(stream, [=, p = p, a_of = m.a, b_of = m.b, c_of = m.c, d_of = m.d] {
    if (splits) std::memset(workspace, 0xFF, bytes_to_split);
    for (std::int64_t i = 0; i < d_of.batch; ++i) {
      HostProduct one = product;
      one.a.data = a_of.place(a, i);
      one.b.data = b_of.place(b, i);
      one.c.data = c_of.place(c, i);
      one.d.data = d_of.place(d, i);
      const auto after = [i](void* data, std::int64_t elements, cudaDataType_t type) -> void* {
        return static_cast<char*>(data) + i * elements * smlp::emulation::bytes_of(type);
      };
      if (p.bias) one.bias = after(p.bias, p.bias_apart, d_of.type);
      if (p.aux) one.aux.data = after(p.aux, p.aux_apart, d_of.type);
      smlp::emulation::run(one);
    }
  });
  if (!taken) return CUBLAS_STATUS_EXECUTION_FAILED;
  smlp::emulation::count_product(with_end, static_cast<int>(algorithm->data[0]));
  return CUBLAS_STATUS_SUCCESS;
}
