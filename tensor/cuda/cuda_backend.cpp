#include "tensor/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/stream.h"
#include "tensor/verb_checks.h"

namespace smlp {

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

int cuda_devices() { return cuda::device_count(); }
int cuda_capability(int device) { return cuda::capability(device); }

namespace cuda {

void float_type(const char* verb, const TensorView& view) {
  if (view.dtype == DType::f32 || view.dtype == DType::bf16 || view.dtype == DType::f16) return;
  throw Error(
      ExitCode::fault,
      fmt::format("{}: GPUs compute in f32, bf16 and f16, not in {}; choose another precision, or the CPU",
                  verb, name_of(view.dtype)));
}

Sequences sequences(const char* verb, const TensorView& view) {
  require(view.shape.rank() == 3, verb, "views must be [sequences, length, channels]");
  return {view.data, view.shape[0], view.shape[1], view.shape[2], view.stride[0], view.stride[1]};
}

CudaBackend::CudaBackend(const CudaOptions& options)
    : device_(options.device),
      deterministic_(options.deterministic),
      products_(device_.stream(), options.tf32, options.product_ends),
      flash_(device_.stream()),
      downloads_(options.device, device_.stream()),
      clock_(device_.stream()) {}

CudaBackend::~CudaBackend() = default;

// --- memory ------------------------------------------------------------------------------------------------

void* CudaBackend::allocate(std::int64_t bytes) { return device_.allocate(bytes); }
void CudaBackend::release(void* memory) noexcept { device_.release(memory); }
void* CudaBackend::allocate_host(std::int64_t bytes) { return device_.allocate_host(bytes); }
void CudaBackend::synchronize() { device_.wait(); }

void CudaBackend::release_host(void* memory) noexcept {
  if (memory != nullptr) downloads_.drain();
  device_.release_host(memory);
}

cudaStream_t stream_of(Backend& backend) {
  const auto* on_a_device = dynamic_cast<CudaBackend*>(&backend);
  expect(on_a_device != nullptr, "this backend computes on no CUDA device");
  return on_a_device->stream();
}

namespace {

// Rows side by side are one piece: a copy by rows takes none of 2 GiB or more, and is never asked for such.
void move_rows(cudaStream_t stream, const Matrix& from, const Matrix& to, std::int64_t size,
               cudaMemcpyKind kind) {
  const auto bytes = [size](std::int64_t elements) { return static_cast<std::size_t>(elements * size); };
  const auto adjacent = [](const Matrix& m) { return m.rows == 1 || m.stride == m.width; };
  check(adjacent(from) && adjacent(to)
            ? cudaMemcpyAsync(to.data, from.data, bytes(from.rows * from.width), kind, stream)
            : cudaMemcpy2DAsync(to.data, bytes(std::max(to.width, to.stride)), from.data, bytes(std::max(from.width, from.stride)),
                                bytes(from.width), static_cast<std::size_t>(from.rows), kind, stream),
        "a copy between host and device failed");
}

}  // namespace

// Few words travel as arguments of a kernel: when and how a driver reads the host's pageable memory is its own affair.
bool CudaBackend::upload_as_words(const void* host, const TensorView& to) {
  constexpr std::int64_t word = sizeof(std::int64_t), most = 2048;
  const bool aligned = reinterpret_cast<std::uintptr_t>(to.data) % word == 0 && to.bytes() % word == 0;
  if (!aligned || !to.contiguous() || to.bytes() == 0 || to.bytes() > most) return false;
  std::array<std::int64_t, most / word> words;
  std::memcpy(words.data(), host, static_cast<std::size_t>(to.bytes()));
  put_words(stream(), std::span(words).first(static_cast<std::size_t>(to.bytes() / word)), static_cast<std::int64_t*>(to.data));
  return true;
}

void CudaBackend::upload(const void* host, TensorView to) {
  device_.not_recorded("memory of the host is read");
  if (upload_as_words(host, to)) return;
  for_each_matrix<2>({TensorView(const_cast<void*>(host), to.shape, to.dtype), to}, [&](const auto& m) {
    move_rows(stream(), m[0], m[1], size_of(to.dtype), cudaMemcpyHostToDevice);
  });
  if (device_.reads_host_pages()) device_.wait();
}

void CudaBackend::download(TensorView from, void* host) {
  device_.not_recorded("memory of the host is written");
  for_each_matrix<2>({from, TensorView(host, from.shape, from.dtype)}, [&](const auto& m) {
    move_rows(stream(), m[0], m[1], size_of(from.dtype), cudaMemcpyDeviceToHost);
  });
  device_.wait();
}

void CudaBackend::to_host(const void* device, void* host, std::int64_t bytes) {
  device_.not_recorded("the host reads what the device has decided");
  check(cudaMemcpyAsync(host, device, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream()),
        "a copy to the host failed");
  device_.wait();
}

void CudaBackend::fill(TensorView out, double value) {
  if (value == 0 && out.contiguous() && out.size() > 0) {
    check(cudaMemsetAsync(out.data, 0, static_cast<std::size_t>(out.bytes()), stream()),
          "memory could not be cleared");
    return;
  }
  for_each_matrix<1>({out}, [&](const auto& m) { cuda::fill(stream(), out.dtype, m[0], value); });
}

void CudaBackend::copy(TensorView from, TensorView to) {
  same_shape("copy", {from, to});
  const bool alike = from.dtype == to.dtype;
  for_each_matrix<2>({from, to}, [&](const auto& m) {
    if (!alike) return convert(stream(), from.dtype, m[0], to.dtype, m[1]);
    RowBlocks whole;
    whole.count = 1;
    whole.block[0] = {0, 0, m[0].rows};
    cuda::copy_rows(stream(), size_of(from.dtype), m[0], m[1], whole);
  });
}

void CudaBackend::copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) {
  const Matrix source = as_matrix(from), target = as_matrix(to);
  check_row_blocks(source, target, blocks);
  RowBlocks some;
  for (const auto& block : blocks) {
    if (block.rows == 0) continue;
    if (from.dtype != to.dtype) {
      convert(stream(), from.dtype,
              {from.at(block.from * source.stride), block.rows, source.width, source.stride}, to.dtype,
              {to.at(block.to * target.stride), block.rows, target.width, target.stride});
      continue;
    }
    some.block[some.count++] = block;
    if (some.count < most_row_blocks) continue;
    cuda::copy_rows(stream(), size_of(from.dtype), source, target, some);
    some.count = 0;
  }
  if (some.count > 0) cuda::copy_rows(stream(), size_of(from.dtype), source, target, some);
}

// --- pointwise and rows ------------------------------------------------------------------------------------

void CudaBackend::add(TensorView a, TensorView b, TensorView out) {
  same_shape("add", {a, b, out});
  same_type("add", {a, b, out});
  float_type("add", a);
  for_each_matrix<3>({a, b, out}, [&](const auto& m) { cuda::add(stream(), a.dtype, m[0], m[1], m[2]); });
}

void CudaBackend::activate(Activation kind, TensorView in, TensorView out) {
  same_shape("activate", {in, out});
  same_type("activate", {in, out});
  float_type("activate", in);
  for_each_matrix<2>({in, out}, [&](const auto& m) { cuda::activate(stream(), in.dtype, kind, m[0], m[1]); });
}

void CudaBackend::activate_backward(Activation kind, TensorView in, TensorView dout, TensorView din) {
  same_shape("activate_backward", {in, dout, din});
  same_type("activate_backward", {in, dout, din});
  float_type("activate_backward", in);
  for_each_matrix<3>({in, dout, din}, [&](const auto& m) {
    cuda::activate_backward(stream(), in.dtype, kind, m[0], m[1], m[2]);
  });
}

namespace {

Gate gate_of(const char* verb, const Gating& g) {
  return {.groups = g.bias.shape[0],
          .activation = g.activation,
          .bias = g.bias.data,
          .bias_stride = g.bias.stride[0],
          .u = sequences(verb, g.u),
          .z = sequences(verb, g.z)};
}

}  // namespace

void CudaBackend::gate(const Gating& g) {
  float_type("gate", g.u);
  check_gate("gate", g, {g.out});
  cuda::gate(stream(), g.u.dtype, gate_of("gate", g), sequences("gate", g.out));
}

void CudaBackend::gate_backward(const Gating& g, TensorView dout, TensorView du, TensorView dz, TensorView dbias) {
  const char* verb = "gate_backward";
  float_type(verb, g.u);
  check_gate(verb, g, {dout, du, dz});
  same_shape(verb, {g.bias, dbias});
  require(dbias.dtype == DType::f32, verb, "dbias must be f32");
  cuda::gate_backward(stream(), g.u.dtype, gate_of(verb, g),
                      {sequences(verb, dout), sequences(verb, du), sequences(verb, dz), dbias.as<float>(), dbias.stride[0]});
}

namespace {

Norm norm_of(const char* verb, const Normalisation& n) {
  float_type(verb, n.x);
  check_norm(verb, n);
  return {n.activation, as_matrix(n.x), n.weight.data,        n.bias.data,
          n.groups,     norm_lines(n),  n.mean.as<float>(), n.inverse_deviation.as<float>()};
}

}  // namespace

void CudaBackend::layer_norm(const Normalisation& n, TensorView out) {
  same_shape("layer_norm", {n.x, out});
  same_type("layer_norm", {n.x, out});
  cuda::layer_norm(stream(), n.x.dtype, norm_of("layer_norm", n), as_matrix(out));
}

void CudaBackend::layer_norm_backward(const Normalisation& n, TensorView dy, TensorView residual, TensorView dx,
                                      TensorView dweight, TensorView dbias) {
  const Norm norm = norm_of("layer_norm_backward", n);
  check_norm_backward(n, dy, residual, dx, dweight, dbias);
  NormBackward back{as_matrix(dy), {}, as_matrix(dx), dweight.as<float>(), dbias.as<float>(), nullptr};
  if (residual) back.residual = as_matrix(residual);
  begin();
  if (dweight || dbias) {
    back.scratch = take<float>(2 * column_sum_floats(n.x.rows() / norm.lines, n.x.width(), norm.lines));
  }
  cuda::layer_norm_backward(stream(), n.x.dtype, norm, back);
}

void CudaBackend::sum_rows(TensorView x, TensorView add_to) {
  float_type("sum_rows", x);
  vector_of("sum_rows", "add_to", add_to, x.width(), add_to.dtype);
  if (add_to.dtype != DType::f32) same_type("sum_rows", {x, add_to});
  begin();
  cuda::sum_rows(stream(), x.dtype, as_matrix(x), add_to.dtype, {add_to.data},
                 take<float>(column_sum_floats(x.rows(), x.width())));
}

void CudaBackend::dropout(TensorView in, double rate, std::uint64_t stream_key, TensorView place, TensorView residual,
                          TensorView out) {
  same_shape("dropout", {in, residual ? residual : in, out});
  same_type("dropout", {in, residual ? residual : in, out});
  float_type("dropout", in);
  require(rate >= 0 && rate < 1, "dropout", "the rate must lie in [0, 1)");
  vector_of("dropout", "place", place, StreamPlace::size, DType::i64);
  cuda::dropout(stream(), in.dtype, as_matrix(in), rate, stream_key, place.as<const std::int64_t>(),
                residual ? as_matrix(residual) : Matrix{}, as_matrix(out));
}

void CudaBackend::jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row,
                         TensorView out) {
  same_shape("jitter", {in, out});
  same_type("jitter", {in, out});
  float_type("jitter", in);
  require(amount >= 0 && amount <= 1, "jitter", "the amount must lie in [0, 1]");
  cuda::jitter(stream(), in.dtype, as_matrix(in), amount, key, first_row, as_matrix(out));
}

// --- columns by index --------------------------------------------------------------------------------------

namespace {

Columns columns_of(const char* verb, const TensorView& in, const TensorView& index, const TensorView& scale,
                   const TensorView& out) {
  same_shape(verb, {in, out});
  same_type(verb, {in, scale, out});
  float_type(verb, in);
  const Columns columns{sequences(verb, in), sequences(verb, out), index.as<const std::int32_t>(),
                        scale.data};
  vector_of(verb, "index", index, in.shape[0] * in.shape[2], DType::i32);
  if (scale) vector_of(verb, "scale", scale, in.shape[0] * in.shape[2], in.dtype);
  return columns;
}

}  // namespace

void CudaBackend::gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  cuda::gather_columns(stream(), in.dtype, columns_of("gather_columns", in, index, scale, out),
                       device_.fault());
}

void CudaBackend::scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  cuda::scatter_columns(stream(), in.dtype, columns_of("scatter_columns", in, index, scale, out),
                        device_.fault());
}

void CudaBackend::column_dots(TensorView a, TensorView b, TensorView out) {
  const char* verb = "column_dots";
  same_shape(verb, {a, b});
  same_type(verb, {a, b});
  float_type(verb, a);
  const Sequences first = sequences(verb, a);
  vector_of(verb, "out", out, first.sequences * first.channels, DType::f32);
  if (first.length == 0) return fill(out, 0);
  cuda::column_dots(stream(), a.dtype, first, sequences(verb, b), out.as<float>());
}

}  // namespace cuda
}  // namespace smlp
