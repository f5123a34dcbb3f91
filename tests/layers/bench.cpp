#include "tests/layers/bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.h"
#include "tests/tensor/field.h"

namespace smlp::test {

namespace {

void compare(Bench& bench, const std::string& what, TensorView at, const std::vector<double>& claimed,
             const std::function<double()>& loss, double tolerance) {
  const auto values = read(*bench.backend, at);
  const double h = 2e-4;  // narrow norms bend quickly
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto moved = [&](double by) {
      auto w = values;
      w[i] += by;
      write(*bench.backend, at, w);
      return loss();
    };
    const double difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
    ASSERT_NEAR(claimed[i], difference, tolerance * (1 + std::abs(difference))) << what << "[" << i << "]";
  }
  write(*bench.backend, at, values);
}

}  // namespace

std::vector<double> random_values(std::int64_t count, std::uint64_t seed, double scale) {
  const RandomStream stream(seed, "test values");
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * stream.normal(i);
  return values;
}

std::vector<double> read(Backend& backend, TensorView view) {
  std::vector<double> values(static_cast<std::size_t>(view.size()));
  if (view.dtype == DType::f64) {
    backend.download(view, values.data());
    return values;
  }
  Memory memory(backend);
  const TensorView wide = memory.take(view.shape, DType::f64);
  backend.copy(view, wide);
  backend.download(wide, values.data());
  return values;
}

void write(Backend& backend, TensorView view, const std::vector<double>& values) {
  ASSERT_EQ(static_cast<std::int64_t>(values.size()), view.size());
  if (view.dtype == DType::f64) return backend.upload(values.data(), view);
  Memory memory(backend);
  const TensorView wide = memory.take(view.shape, DType::f64);
  backend.upload(values.data(), wide);
  backend.copy(wide, view);
}

void write_indices(Backend& backend, TensorView view, const std::vector<std::int32_t>& values) {
  ASSERT_EQ(static_cast<std::int64_t>(values.size()), view.size());
  backend.upload(values.data(), view);
}

Memory::~Memory() {
  backend_.synchronize();
  for (void* block : blocks_) backend_.release(block);
}

TensorView Memory::take(Shape shape, DType type) {
  blocks_.push_back(backend_.allocate(std::max<std::int64_t>(shape.size(), 1) * size_of(type)));
  const TensorView view(blocks_.back(), shape, type);
  if (type == DType::f64 || type == DType::f32 || type == DType::bf16 || type == DType::f16) {
    backend_.fill(view, std::numeric_limits<double>::quiet_NaN());
  }
  return view;
}

Bench::Bench(std::int64_t sequences, std::int64_t length, DType type)
    : Bench({make_cpu_backend(), type, type}, sequences, length) {}

Bench::Bench(BenchPlace place, std::int64_t sequences, std::int64_t length)
    : type(place.type), numbers(place.numbers), backend(std::move(place.backend)) {
  c.sequences = sequences;
  c.length = length;
  c.seed = 7;
  c.place = memory.take({StreamPlace::size}, DType::i64);
  c.stand_at(3, 0);
}

ExpertExchange& Bench::make_exchange(std::int64_t experts) {
  exchange = std::make_unique<ExpertExchange>(*solo, experts);
  return *exchange;
}

void Bench::seal(std::uint64_t seed, double scale) {
  store.seal(*backend, type, seed);
  for (auto& parameter : store.parameters()) {
    auto values = random_values(parameter.value.size(), ++seed, scale);
    const bool scales = parameter.name.ends_with("norm.weight");
    for (double& value : values) value = round_to(numbers, value + (scales ? 1 : 0));
    write(*backend, parameter.value, values);
  }
  store.zero_grad(*backend);
  backend->fill(scratch.take({std::int64_t{1} << 17}, DType::f64), std::nan(""));
  begin();
}

void Bench::begin() {
  scratch.reset();
  if (exchange) exchange->begin(c);
}

void check_gradients(Bench& bench, Layer& layer, std::int64_t width, double tolerance) {
  Backend& backend = *bench.backend;
  const Shape shape{bench.c.rows(), width};
  const TensorView x = bench.memory.take(shape, DType::f64), y = bench.memory.take(shape, DType::f64);
  const TensorView dy = bench.memory.take(shape, DType::f64), dx = bench.memory.take(shape, DType::f64);
  write(backend, x, random_values(shape.size(), 102));
  const auto upstream = random_values(shape.size(), 103);
  const auto loss = [&] {
    bench.begin();
    layer.forward(bench.c, x, y);
    const auto out = read(backend, y);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * upstream[i];
    return sum;
  };
  const auto backward = [&] {
    loss();
    write(backend, dy, upstream);
    layer.backward(bench.c, dy, dx);
  };
  backward();  // once here, twice below: dx must not add up
  backward();
  const auto claimed = read(backend, dx);
  bench.store.zero_grad(backend);
  compare(bench, "x", x, claimed, loss, tolerance);
  check_parameter_gradients(bench, loss, backward, tolerance);
}

void check_parameter_gradients(Bench& bench, const std::function<double()>& loss,
                               const std::function<void()>& backward, double tolerance) {
  bench.store.zero_grad(*bench.backend);
  backward();
  backward();  // twice: parameter gradients must add up
  std::vector<std::vector<double>> claimed;
  for (const auto& parameter : bench.store.parameters()) {
    for (double& g : claimed.emplace_back(read(*bench.backend, parameter.grad))) g /= 2;
  }
  std::size_t k = 0;
  for (const auto& parameter : bench.store.parameters()) {
    compare(bench, parameter.name, parameter.value, claimed[k++], loss, tolerance);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace smlp::test
