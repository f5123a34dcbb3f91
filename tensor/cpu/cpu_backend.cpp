#include "tensor/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "tensor/dropout.h"
#include "tensor/verb_checks.h"

namespace smlp {

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options);
}

namespace cpu {

namespace {

Pointwise pointwise(Activation kind) {
  switch (kind) {
    case Activation::gelu_tanh: return Pointwise::gelu_tanh;
    case Activation::gelu: return Pointwise::gelu;
    case Activation::relu: return Pointwise::relu;
    case Activation::none: break;
  }
  return Pointwise::none;
}

void copy_bytes(const Matrix& from, const Matrix& to, std::int64_t element) {
  for (std::int64_t r = 0; r < from.rows; ++r) {
    std::memcpy(static_cast<std::byte*>(to.data) + r * to.stride * element,
                static_cast<const std::byte*>(from.data) + r * from.stride * element,
                static_cast<std::size_t>(from.width * element));
  }
}

// Elements of the wide type, to the end of a cache line.
std::int64_t scratch_line(std::int64_t elements) {
  return (elements + 15) / 16 * 16;
}

}  // namespace

void float_type(const char* verb, const TensorView& view) {
  if (place_of(view.dtype) >= 0) return;
  throw Error(ExitCode::fault, fmt::format("{}: the CPU computes in f64, f32, bf16 and f16, not in {}", verb,
                                           name_of(view.dtype)));
}

CpuBackend::CpuBackend(const CpuOptions& options)
    : set_(kernels_named(options.isa.c_str())), team_(options.threads), products_(team_, set_) {
  require(options.threads > 0, "cpu backend", "it needs at least one thread");
}

const Kernels& CpuBackend::kernels(DType type) const {
  return set_.values[place_of(type)];
}

// --- memory ---------------------------------------------------------------------------------------------------

void* CpuBackend::allocate(std::int64_t bytes) {
  return allocate_aligned(bytes);
}

void CpuBackend::release(void* memory) noexcept { std::free(memory); }

void CpuBackend::upload(const void* host, TensorView to) {
  copy(TensorView(const_cast<void*>(host), to.shape, to.dtype), to);
}

void CpuBackend::download(TensorView from, void* host) { copy(from, TensorView(host, from.shape, from.dtype)); }

void CpuBackend::fill(TensorView out, double value) {
  if (out.size() == 0) return;
  if (place_of(out.dtype) >= 0) {
    elementwise<1>({out}, Work::plain, [&](const auto& m) { kernels(out.dtype).fill(m[0], value); });
    return;
  }
  const auto filled = static_cast<std::int64_t>(value);
  const std::int64_t size = size_of(out.dtype);
  for_each_matrix<1>({out}, [&](const auto& m) {
    for (std::int64_t r = 0; r < m[0].rows; ++r) {
      for (std::int64_t c = 0; c < m[0].width; ++c) {
        std::memcpy(static_cast<std::byte*>(m[0].data) + (r * m[0].stride + c) * size, &filled,
                    static_cast<std::size_t>(size));
      }
    }
  });
}

void CpuBackend::convert(const Matrix& from, DType from_type, const Matrix& to, DType to_type) const {
  const std::array<DType, 2> types = {from_type, to_type};
  if (from_type == to_type) {
    return team_.share_elements<2>({from, to}, types, Work::plain,
                                   [&](const auto& m) { copy_bytes(m[0], m[1], size_of(to_type)); });
  }
  const int i = place_of(from_type), j = place_of(to_type);
  if (i < 0 || j < 0) {
    throw Error(ExitCode::fault,
                fmt::format("copy: the CPU does not convert {} to {}", name_of(from_type), name_of(to_type)));
  }
  team_.share_elements<2>({from, to}, types, Work::plain, [&](const auto& m) { set_.convert[i][j](m[0], m[1]); });
}

void CpuBackend::copy(TensorView from, TensorView to) {
  same_shape("copy", {from, to});
  for_each_matrix<2>({from, to}, [&](const auto& m) { convert(m[0], from.dtype, m[1], to.dtype); });
}

void CpuBackend::copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) {
  const Matrix source = as_matrix(from), target = as_matrix(to);
  check_row_blocks(source, target, blocks);
  for (const auto& block : blocks) {
    convert({from.at(block.from * source.stride), block.rows, source.width, source.stride}, from.dtype,
            {to.at(block.to * target.stride), block.rows, target.width, target.stride}, to.dtype);
  }
}

// --- products -------------------------------------------------------------------------------------------------

void CpuBackend::matmul(const Matmul& m) {
  float_type("matmul", m.a);
  check_matmul(m);
  require(m.out.dtype == m.a.dtype || m.out.dtype == wide_type(m.a.dtype), "matmul",
          "out must have the values' type, or f32 for bf16 and f16");
  const Matrix a = as_matrix(m.a), b = as_matrix(m.b), out = as_matrix(m.out);
  Product p{.m = out.rows, .n = out.width, .k = m.transpose_a ? a.rows : a.width,
            .a = a.data, .b = b.data, .a_stride = a.stride, .b_stride = b.stride,
            .transpose_a = m.transpose_a, .transpose_b = m.transpose_b, .accumulate = m.accumulate, .out = out,
            .type = m.a.dtype, .out_type = m.out.dtype, .bias = m.bias.data};
  if (m.residual) p.residual = as_matrix(m.residual);
  const bool backward = m.activation_backward && m.activation != Activation::none;
  if (!backward) {
    p.activation = pointwise(m.activation);
    if (m.activation != Activation::none && m.pre_activation) p.pre_activation = as_matrix(m.pre_activation);
  }
  products_.run(p);
  if (backward) activate_backward(m.activation, m.pre_activation, m.out, m.out);
  if (m.bias_gradient) sum_rows(m.a, m.bias_gradient);
}

// --- pointwise and rows ---------------------------------------------------------------------------------------

void CpuBackend::add(TensorView a, TensorView b, TensorView out) {
  same_shape("add", {a, b, out});
  same_type("add", {a, b, out});
  float_type("add", a);
  elementwise<3>({a, b, out}, Work::plain, [&](const auto& m) { kernels(a.dtype).add(m[0], m[1], m[2]); });
}

void CpuBackend::activate(Activation kind, TensorView in, TensorView out) {
  same_shape("activate", {in, out});
  same_type("activate", {in, out});
  float_type("activate", in);
  elementwise<2>({in, out}, Work::heavy,
                 [&](const auto& m) { kernels(in.dtype).activate(pointwise(kind), m[0], m[1]); });
}

void CpuBackend::activate_backward(Activation kind, TensorView in, TensorView dout, TensorView din) {
  same_shape("activate_backward", {in, dout, din});
  same_type("activate_backward", {in, dout, din});
  float_type("activate_backward", in);
  elementwise<3>({in, dout, din}, Work::heavy, [&](const auto& m) {
    kernels(in.dtype).activate_backward(pointwise(kind), m[0], m[1], m[2]);
  });
}

namespace {

// Calls body(matrices, group, first) for the channels of each sequence and group, and of some positions, from `first` on.
template <std::size_t n, class Body>
void for_each_gate(const Team& team, const Gating& g, const std::array<TensorView, n>& views, Body body) {
  const std::int64_t channels = g.u.shape[2] / g.bias.shape[0];
  team.share(g.u.shape[1], g.u.shape[0] * g.u.shape[2] * Work::heavy, [&](const Share& share) {
    for (std::int64_t b = 0; b < g.u.shape[0]; ++b) {
      for (std::int64_t group = 0; group < g.bias.shape[0]; ++group) {
        std::array<Matrix, n> m;
        for (std::size_t i = 0; i < n; ++i) {
          const auto& view = views[i];
          m[i] = {view.at(b * view.stride[0] + share.first * view.stride[1] + group * channels), share.count, channels,
                  view.stride[1]};
        }
        body(m, group, share.first);
      }
    }
  });
}

}  // namespace

void CpuBackend::gate(const Gating& g) {
  check_gate("gate", g, {g.out});
  float_type("gate", g.u);
  for_each_gate<3>(team_, g, {g.u, g.z, g.out}, [&](const auto& m, std::int64_t group, std::int64_t first) {
    kernels(g.u.dtype).gate({.activation = pointwise(g.activation),
                             .u = m[0],
                             .z = m[1],
                             .bias = g.bias.at(group * g.bias.stride[0] + first),
                             .out = m[2]});
  });
}

void CpuBackend::gate_backward(const Gating& g, TensorView dout, TensorView du, TensorView dz, TensorView dbias) {
  const char* verb = "gate_backward";
  check_gate(verb, g, {dout, du, dz});
  float_type(verb, g.u);
  same_shape(verb, {g.bias, dbias});
  require(dbias.dtype == wide_type(g.u.dtype), verb, "dbias must be f64 for f64 values and f32 for others");
  for_each_gate<5>(team_, g, {g.u, g.z, dout, du, dz}, [&](const auto& m, std::int64_t group, std::int64_t first) {
    kernels(g.u.dtype).gate_backward({.activation = pointwise(g.activation),
                                      .u = m[0],
                                      .z = m[1],
                                      .bias = g.bias.at(group * g.bias.stride[0] + first),
                                      .dout = m[2],
                                      .du = m[3],
                                      .dz = m[4],
                                      .dbias = dbias.at(group * dbias.stride[0] + first)});
  });
}

namespace {

NormArguments norm_arguments(const char* verb, const Normalisation& n) {
  float_type(verb, n.x);
  check_norm(verb, n);
  NormArguments a{};
  a.activation = pointwise(n.activation);
  a.x = as_matrix(n.x);
  a.weight = n.weight.data;
  a.bias = n.bias.data;
  a.groups = n.groups;
  a.mean = n.mean.data;
  a.inverse_deviation = n.inverse_deviation.data;
  return a;
}

// Of some rows, with `scratch` elements of scratch memory that no other part uses.
NormArguments of_rows(const NormArguments& a, DType type, std::int64_t scratch, const Share& share) {
  const DType wide = wide_type(type);
  NormArguments rows = a;
  for (Matrix NormArguments::*m : {&NormArguments::x, &NormArguments::out, &NormArguments::dy, &NormArguments::residual,
                                   &NormArguments::dx}) {
    rows.*m = rows_of(a.*m, type, share);
  }
  rows.mean = offset_by(a.mean, share.first * a.groups, wide);
  rows.inverse_deviation = offset_by(a.inverse_deviation, share.first * a.groups, wide);
  rows.scratch = offset_by(a.scratch, share.index * scratch, wide);
  rows.kept = offset_by(a.kept, share.first * 2 * a.x.width, wide);
  return rows;
}

}  // namespace

void CpuBackend::layer_norm(const Normalisation& n, TensorView out) {
  same_shape("layer_norm", {n.x, out});
  same_type("layer_norm", {n.x, out});
  NormArguments a = norm_arguments("layer_norm", n);
  if (const std::int64_t lines = norm_lines(n); lines > 1) {
    for (std::int64_t l = 0; l < lines; ++l) layer_norm(norm_of_line(n, l, lines), run_of_rows(out, l, lines));
    return;
  }
  a.out = as_matrix(out);
  const DType type = n.x.dtype;
  const bool activated = n.activation != Activation::none;
  const std::int64_t each = scratch_line(n.x.width() / n.groups);
  if (activated) a.scratch = scratch(team_.threads() * each * size_of(wide_type(type)));
  team_.share(a.x.rows, a.x.width * Work::heavy,
              [&](const Share& share) { kernels(type).layer_norm(of_rows(a, type, each, share)); });
}

void CpuBackend::layer_norm_backward(const Normalisation& n, TensorView dy, TensorView residual, TensorView dx,
                                     TensorView dweight, TensorView dbias) {
  NormArguments a = norm_arguments("layer_norm_backward", n);
  check_norm_backward(n, dy, residual, dx, dweight, dbias);
  if (const std::int64_t lines = norm_lines(n); lines > 1) {
    const auto run = [&](std::int64_t l, const TensorView& x) { return x ? run_of_rows(x, l, lines) : x; };
    const auto line = [&](std::int64_t l, const TensorView& sums) { return sums ? sums.slice(l) : sums; };
    for (std::int64_t l = 0; l < lines; ++l) {
      layer_norm_backward(norm_of_line(n, l, lines), run(l, dy), run(l, residual), run(l, dx), line(l, dweight), line(l, dbias));
    }
    return;
  }
  a.dy = as_matrix(dy);
  a.dx = as_matrix(dx);
  if (residual) a.residual = as_matrix(residual);
  a.dweight = dweight.data;
  a.dbias = dbias.data;
  const DType type = n.x.dtype;
  const std::int64_t each = scratch_line(4 * a.x.width), work = a.x.width * Work::heavy;
  const auto go_back = [&](const NormArguments& rows) {
    team_.share(rows.x.rows, work,
                [&](const Share& share) { kernels(type).layer_norm_backward(of_rows(rows, type, each, share)); });
  };
  const bool sums = a.dweight || a.dbias;
  if (sums && team_.parts(a.x.rows, work) > 1) return layer_norm_backward_in_blocks(a, type, each, go_back);
  a.scratch = scratch(team_.threads() * each * size_of(wide_type(type)));
  go_back(a);
}

// Sums over rows in the order of rows: a block of rows keeps what they are of, and is then summed by columns.
template <class GoBack>
void CpuBackend::layer_norm_backward_in_blocks(const NormArguments& a, DType type, std::int64_t each, const GoBack& go_back) {
  constexpr std::int64_t elements = 32768;  // of a block and thread: what it keeps stays in cache
  const DType wide = wide_type(type);
  const std::int64_t width = a.x.width, line = scratch_line(width);
  const std::int64_t block = std::min(a.x.rows, team_.threads() * std::max<std::int64_t>(1, elements / width));
  void* sums = scratch((2 * line + team_.threads() * each + 2 * block * width) * size_of(wide));
  void* rest = offset_by(sums, 2 * line, wide);
  void* kept = offset_by(rest, team_.threads() * each, wide);
  kernels(wide).fill({sums, 1, 2 * line, 2 * line}, 0);
  for (std::int64_t first = 0; first < a.x.rows; first += block) {
    const std::int64_t count = std::min(block, a.x.rows - first);
    NormArguments rows = of_rows(a, type, 0, {0, first, count});
    rows.scratch = rest;
    rows.kept = kept;
    go_back(rows);
    team_.share_columns(width, count * Work::plain, [&](const Share& share) {
      kernels(type).layer_norm_sums({offset_by(kept, share.first, wide), count, width, share.count,
                                     offset_by(sums, share.first, wide), offset_by(sums, line + share.first, wide)});
    });
  }
  const auto add_to = [&](void* total, void* sum) {
    const Matrix to{total, 1, width, width};
    if (total) kernels(wide).add(to, {sum, 1, width, width}, to);
  };
  add_to(a.dweight, sums);
  add_to(a.dbias, offset_by(sums, line, wide));
}

void CpuBackend::add_rows(const TensorView& x, void* total) const {
  const DType wide = wide_type(x.dtype);
  const Matrix m = as_matrix(x);
  team_.share_columns(m.width, m.rows * Work::plain, [&](const Share& share) {
    kernels(x.dtype).sum_rows(columns_of(m, x.dtype, share), offset_by(total, share.first, wide));
  });
}

void CpuBackend::sum_rows(TensorView x, TensorView add_to) {
  float_type("sum_rows", x);
  const DType wide = wide_type(x.dtype);
  const std::int64_t width = x.width();
  vector_of("sum_rows", "add_to", add_to, width, add_to.dtype);
  if (add_to.dtype == wide) {
    add_rows(x, add_to.data);
    return;
  }
  same_type("sum_rows", {x, add_to});
  const Matrix total{scratch(width * size_of(wide)), 1, width, width}, to{add_to.data, 1, width, width};
  convert(to, add_to.dtype, total, wide);
  add_rows(x, total.data);
  convert(total, wide, to, add_to.dtype);
}

void CpuBackend::dropout(TensorView in, double rate, std::uint64_t stream, TensorView place, TensorView residual,
                         TensorView out) {
  same_shape("dropout", {in, residual ? residual : in, out});
  same_type("dropout", {in, residual ? residual : in, out});
  float_type("dropout", in);
  require(rate >= 0 && rate < 1, "dropout", "the rate must lie in [0, 1)");
  vector_of("dropout", "place", place, StreamPlace::size, DType::i64);
  const auto* at = place.as<const std::int64_t>();
  const std::uint64_t key = dropout_key(stream, at[StreamPlace::step]);
  const Matrix from = as_matrix(in), more = residual ? as_matrix(residual) : Matrix{}, to = as_matrix(out);
  team_.share(from.rows, from.width * Work::heavy, [&](const Share& share) {
    kernels(in.dtype).dropout(rows_of(from, in.dtype, share), rate, key, at[StreamPlace::first_row] + share.first,
                              rows_of(more, in.dtype, share), rows_of(to, in.dtype, share));
  });
}

void CpuBackend::jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row, TensorView out) {
  same_shape("jitter", {in, out});
  same_type("jitter", {in, out});
  float_type("jitter", in);
  require(amount >= 0 && amount <= 1, "jitter", "the amount must lie in [0, 1]");
  const Matrix from = as_matrix(in), to = as_matrix(out);
  team_.share(from.rows, from.width * Work::heavy, [&](const Share& share) {
    kernels(in.dtype).jitter(rows_of(from, in.dtype, share), amount, key, first_row + share.first,
                             rows_of(to, in.dtype, share));
  });
}

// --- rows by index --------------------------------------------------------------------------------------------

namespace {

IndexArguments index_arguments(const char* verb, const TensorView& in, const TensorView& index, double scale,
                               const TensorView& row_scale, const TensorView& out, const TensorView& indexed) {
  float_type(verb, in);
  require(in.width() == out.width(), verb, "rows of different widths");
  vector_of(verb, "index", index, index.size(), DType::i32);
  if (row_scale) vector_of(verb, "row_scale", row_scale, index.size(), in.dtype);
  const auto* values = index.as<const std::int32_t>();
  for (std::int64_t s = 0; s < index.size(); ++s) {
    require(values[s] < indexed.rows(), verb, "an index lies beyond the last row");
  }
  return {as_matrix(in), values, index.size(), scale, row_scale.data, as_matrix(out)};
}

}  // namespace

void CpuBackend::gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale, TensorView out) {
  same_type("gather_rows", {in, out});
  require(out.rows() == index.size(), "gather_rows", "out must have one row an index");
  const IndexArguments a = index_arguments("gather_rows", in, index, scale, row_scale, out, in);
  team_.share(a.count, a.out.width * Work::plain, [&](const Share& share) {
    kernels(in.dtype).gather_rows({a.in, a.index + share.first, share.count, a.scale,
                                   offset_by(a.row_scale, share.first, in.dtype), rows_of(a.out, in.dtype, share)});
  });
}

void CpuBackend::scatter_add_rows(TensorView in, TensorView index, Repeats, double scale, TensorView row_scale,
                                  TensorView add_to) {
  const char* verb = "scatter_add_rows";
  require(in.rows() == index.size(), verb, "in must have one row an index");
  const IndexArguments a = index_arguments(verb, in, index, scale, row_scale, add_to, add_to);
  const bool wide = add_to.dtype == wide_type(in.dtype);
  if (!wide) same_type(verb, {in, add_to});
  const auto add = wide ? kernels(in.dtype).scatter_add_rows_wide : kernels(in.dtype).scatter_add_rows;
  team_.share_columns(a.in.width, a.count * Work::plain, [&](const Share& share) {  // rows may come twice, in order
    IndexArguments columns = a;
    columns.in = columns_of(a.in, in.dtype, share);
    columns.out = columns_of(a.out, add_to.dtype, share);
    add(columns);
  });
}

void CpuBackend::row_dots(TensorView a, TensorView b, TensorView index, TensorView out) {
  const char* verb = "row_dots";
  same_type(verb, {a, b});
  vector_of(verb, "out", out, a.rows(), wide_type(a.dtype));
  require(a.rows() == index.size(), verb, "a must have one row an index");
  const IndexArguments checked = index_arguments(verb, a, index, 1, {}, b, b);
  team_.share(a.rows(), a.width() * Work::plain, [&](const Share& share) {
    kernels(a.dtype).row_dots(rows_of(checked.in, a.dtype, share), checked.out, checked.index + share.first,
                              offset_by(out.data, share.first, out.dtype));
  });
}

// --- loss and update ------------------------------------------------------------------------------------------

void CpuBackend::cross_entropy(TensorView logits, TensorView targets, TensorView row_loss, TensorView scale,
                               bool gradient) {
  const char* verb = "cross_entropy";
  float_type(verb, logits);
  check_cross_entropy(logits, targets, row_loss, scale, gradient);
  const Matrix m = as_matrix(logits);
  const auto* target = targets.as<const std::int32_t>();
  for (std::int64_t r = 0; r < m.rows; ++r) {
    require(target[r] < m.width, verb, "a target lies beyond the vocabulary");
  }
  const double factor = gradient ? scale.as<double>()[0] : 0;
  team_.share(m.rows, m.width * Work::heavy, [&](const Share& share) {
    kernels(logits.dtype)
        .cross_entropy({rows_of(m, logits.dtype, share), target + share.first, row_loss.as<double>() + share.first, factor,
                        gradient});
  });
}

void CpuBackend::sum(TensorView x, TensorView add_to) {
  float_type("sum", x);
  vector_of("sum", "add_to", add_to, 1, DType::f64);
  for_each_matrix<1>({x}, [&](const auto& m) { add_to.as<double>()[0] += kernels(x.dtype).sum(m[0]); });
}

void CpuBackend::sum_of_squares(TensorView x, TensorView add_to) {
  float_type("sum_of_squares", x);
  vector_of("sum_of_squares", "add_to", add_to, 1, DType::f64);
  for_each_matrix<1>({x}, [&](const auto& m) { add_to.as<double>()[0] += kernels(x.dtype).sum_of_squares(m[0]); });
}

void CpuBackend::adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad,
                       TensorView m, TensorView v, TensorView control) {
  const char* verb = "adamw";
  float_type(verb, value);
  const DType wide = wide_type(value.dtype);
  const std::int64_t count = value.size();
  vector_of(verb, "value", value, count, value.dtype);
  vector_of(verb, "grad", grad, count, wide);
  vector_of(verb, "m", m, count, wide);
  vector_of(verb, "v", v, count, wide);
  if (master) vector_of(verb, "master", master, count, DType::f32);
  require(!master || value.dtype != wide, verb, "only bf16 and f16 values have a master copy");
  vector_of(verb, "control", control, StepControl::size, DType::f64);
  const auto* step = control.as<const double>();
  const double squared_norm = step[StepControl::squared_norm];
  if (!std::isfinite(squared_norm)) return;
  double scale = step[StepControl::gradient_scale];
  if (settings.clip_norm > 0) {
    const double norm = std::sqrt(squared_norm) * scale;
    scale *= std::min(1.0, settings.clip_norm / (norm + 1e-6));
  }
  team_.share_columns(count, Work::heavy, [&](const Share& share) {
    const auto from = [&](const TensorView& x) { return offset_by(x.data, share.first, x.dtype); };
    kernels(value.dtype)
        .adamw({share.count, from(value), static_cast<float*>(from(master)), from(grad), from(m), from(v),
                step[StepControl::learning_rate], step[StepControl::correction], scale, settings.beta1, settings.beta2,
                settings.eps, settings.weight_decay});
  });
}

}  // namespace cpu
}  // namespace smlp
