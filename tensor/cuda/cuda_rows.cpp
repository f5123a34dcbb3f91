// Rows by index, loss and update.
#include "tensor/cuda/cuda_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

Indexed indexed(const char* verb, const TensorView& in, const TensorView& index, double scale,
                const TensorView& row_scale, const TensorView& out) {
  float_type(verb, in);
  require(in.width() == out.width(), verb, "rows of different widths");
  vector_of(verb, "index", index, index.size(), DType::i32);
  if (row_scale) vector_of(verb, "row_scale", row_scale, index.size(), in.dtype);
  return {as_matrix(in),  index.as<const std::int32_t>(),
          index.size(),   static_cast<float>(scale),
          row_scale.data, as_matrix(out)};
}

}  // namespace

Sort CudaBackend::take_order(std::int64_t count) {
  Sort s{};
  s.count = count;
  s.value = take<std::int32_t>(count);
  s.other_value = take<std::int32_t>(count);
  s.counts = take<std::int32_t>(sort_counts(count));
  return s;
}

Sort CudaBackend::take_sort(std::int64_t count) {
  Sort s = take_order(count);
  s.key = take<std::uint32_t>(count);
  s.other_key = take<std::uint32_t>(count);
  return s;
}

Sort CudaBackend::take_wide_sort(std::int64_t count) {
  Sort s = take_order(count);
  s.wide_key = take<std::uint64_t>(count);
  s.other_wide_key = take<std::uint64_t>(count);
  return s;
}

void CudaBackend::gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale,
                              TensorView out) {
  same_type("gather_rows", {in, out});
  require(out.rows() == index.size(), "gather_rows", "out must have one row an index");
  cuda::gather_rows(stream(), in.dtype, indexed("gather_rows", in, index, scale, row_scale, out),
                    device_.fault());
}

void CudaBackend::scatter_add_rows(TensorView in, TensorView index, Repeats repeats, double scale, TensorView row_scale,
                                   TensorView add_to) {
  const char* verb = "scatter_add_rows";
  require(in.rows() == index.size(), verb, "in must have one row an index");
  const Indexed a = indexed(verb, in, index, scale, row_scale, add_to);
  if (add_to.dtype != DType::f32) same_type(verb, {in, add_to});
  if (repeats == Repeats::none) return add_to_distinct_rows(stream(), in.dtype, a, add_to.dtype, device_.fault());
  begin();
  const Sort s = take_sort(a.count);
  order_by_index(stream(), a.index, a.out.rows, s, device_.fault());
  add_to_sorted_rows(stream(), in.dtype, a, add_to.dtype, s);
}

void CudaBackend::row_dots(TensorView a, TensorView b, TensorView index, TensorView out) {
  const char* verb = "row_dots";
  same_type(verb, {a, b});
  vector_of(verb, "out", out, a.rows(), DType::f32);
  require(a.rows() == index.size(), verb, "a must have one row an index");
  const Indexed checked = indexed(verb, a, index, 1, {}, b);
  cuda::row_dots(stream(), a.dtype, checked.in, checked.out, checked.index, out.as<float>(), device_.fault());
}

void CudaBackend::cross_entropy(TensorView logits, TensorView targets, TensorView row_loss, TensorView scale,
                                bool gradient) {
  float_type("cross_entropy", logits);
  check_cross_entropy(logits, targets, row_loss, scale, gradient);
  cuda::cross_entropy(stream(), logits.dtype, as_matrix(logits), targets.as<const std::int32_t>(), row_loss.as<double>(),
                      scale.as<const double>(), gradient, device_.fault());
}

void CudaBackend::add_sum(const char* verb, const TensorView& x, bool squares, const TensorView& add_to) {
  if (x.dtype != DType::f64) float_type(verb, x);
  vector_of(verb, "add_to", add_to, 1, DType::f64);
  begin();
  auto* scratch = take<double>(sum_blocks);
  for_each_matrix<1>(
      {x}, [&](const auto& m) { cuda::sum(stream(), x.dtype, m[0], squares, add_to.as<double>(), scratch); });
}

void CudaBackend::sum(TensorView x, TensorView add_to) { add_sum("sum", x, false, add_to); }
void CudaBackend::sum_of_squares(TensorView x, TensorView add_to) {
  add_sum("sum_of_squares", x, true, add_to);
}

void CudaBackend::adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad,
                        TensorView m, TensorView v, TensorView control) {
  const char* verb = "adamw";
  float_type(verb, value);
  const std::int64_t count = value.size();
  vector_of(verb, "value", value, count, value.dtype);
  vector_of(verb, "grad", grad, count, DType::f32);
  vector_of(verb, "m", m, count, DType::f32);
  vector_of(verb, "v", v, count, DType::f32);
  if (master) vector_of(verb, "master", master, count, DType::f32);
  require(!master || value.dtype != DType::f32, verb, "only bf16 and f16 values have a master copy");
  vector_of(verb, "control", control, StepControl::size, DType::f64);
  cuda::adamw(stream(), value.dtype,
              {count, value.data, master.as<float>(), grad.as<const float>(), m.as<float>(), v.as<float>(),
               control.as<const double>(), settings});
}

}  // namespace smlp::cuda
