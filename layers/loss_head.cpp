#include "layers/loss_head.h"

#include <algorithm>

#include "core/error.h"

namespace smlp {

LossHead::LossHead(ParameterStore& store, const std::string& name, Parameter& table)
    : norm_(store, name, table.shape[1]), table_(table) {}

void LossHead::forward_loss(Context& c, TensorView x, TensorView row_loss) {
  expect(row_loss.size() == x.rows(), "forward_loss: one loss a row is written");
  if (x.rows() == 0) return;
  expect(c.targets && c.targets.size() == x.rows(), "forward_loss: there must be a target for every row");
  const TensorView normed = c.scratch.take({x.rows(), x.width()}, x.dtype);
  norm_.forward(c, x, normed);
  dnormed_ = normed;  // chunk by chunk in its place
  // Rounded logits are good enough to train by; a loss that is reported comes from unrounded ones.
  const DType logit_type = c.training() ? x.dtype : wide_type(x.dtype);
  const Arena::Frame frame(c.scratch);
  const std::int64_t vocabulary = table_.shape[0], rows_at_once = c.backend.rows_at_once();
  const TensorView all = c.scratch.take({std::min(rows_at_once, x.rows()), vocabulary}, logit_type);
  for (std::int64_t first = 0; first < x.rows(); first += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, x.rows() - first);
    const TensorView logits = all.row_range(0, count), part = normed.row_range(first, count);
    c.backend.matmul({.a = part, .b = table_.value, .out = logits, .transpose_b = true});
    c.backend.cross_entropy(logits, c.targets.row_range(first, count), row_loss.row_range(first, count),
                            c.loss_scale, c.training());
    if (!c.training()) continue;
    c.backend.matmul({.a = logits, .b = part, .out = table_.grad, .transpose_a = true, .accumulate = true});
    c.backend.matmul({.a = logits, .b = table_.value, .out = part});
  }
}

void LossHead::backward(Context& c, TensorView dx) {
  if (dx.rows() > 0) norm_.backward(c, dnormed_, dx);
}

void LossHead::forward_logits(Context& c, TensorView x, TensorView rows, TensorView logits) {
  if (rows.size() == 0) return;
  const TensorView picked = c.scratch.take({rows.size(), x.width()}, x.dtype);
  if (x.rows() == 0) {
    c.backend.fill(logits, 0);
    return;
  }
  const TensorView normed = c.scratch.take({x.rows(), x.width()}, x.dtype);
  norm_.forward(c, x, normed);
  c.backend.gather_rows(normed, rows, 1, {}, picked);
  c.backend.matmul({.a = picked, .b = table_.value, .out = logits, .transpose_b = true});
}

}  // namespace smlp
