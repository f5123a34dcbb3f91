// What a test of layers needs: a backend, a store, poisoned scratch memory, one rank, a context; and the
// comparison of a layer's gradients with differences.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "layers/exchange.h"
#include "layers/layer.h"
#include "params/parameter_store.h"

namespace smlp::test {

std::vector<double> random_values(std::int64_t count, std::uint64_t seed, double scale = 1);
// Of any floating type.
std::vector<double> read(Backend& backend, TensorView view);
void write(Backend& backend, TensorView view, const std::vector<double>& values);
void write_indices(Backend& backend, TensorView view, const std::vector<std::int32_t>& values);

// Memory of a backend that lives as long as the test.
class Memory {
 public:
  explicit Memory(Backend& backend) : backend_(backend) {}
  ~Memory();
  TensorView take(Shape shape, DType type);  // floating types filled with NaN

 private:
  Backend& backend_;
  std::vector<void*> blocks_;
};

// Where layers compute, and the type that their parameters and inputs are rounded to, so that another place may have them too.
struct BenchPlace {
  std::unique_ptr<Backend> backend;
  DType type, numbers;
};

struct Bench {
  explicit Bench(std::int64_t sequences = 2, std::int64_t length = 3, DType type = DType::f64);
  Bench(BenchPlace place, std::int64_t sequences, std::int64_t length);

  DType type, numbers;
  std::unique_ptr<Backend> backend;
  Memory memory{*backend};
  ParameterStore store;
  Arena scratch{*backend};
  std::unique_ptr<Communicator> solo = make_solo(*backend);
  std::unique_ptr<ExpertExchange> exchange;  // for tests of sparse layers: make_exchange()
  Context c{*backend, scratch};

  ExpertExchange& make_exchange(std::int64_t experts);
  // Seals, gives every parameter a random value (norms near 1, everything else near 0), poisons scratch
  // memory.
  void seal(std::uint64_t seed = 1, double scale = 0.5);
  // Voids what was taken from scratch memory, and tells the exchange of the call that follows.
  void begin();
};

// L = <dy, layer(x)> for a fixed random dy, so every gradient that the layer claims can be compared with a
// 4-point difference of L: |claimed - difference| <= tolerance · (1 + |difference|).
void check_gradients(Bench& bench, Layer& layer, std::int64_t width, double tolerance = 1e-7);
// The same for any L that can be run forward, and backward (adding to parameter gradients).
void check_parameter_gradients(Bench& bench, const std::function<double()>& loss,
                               const std::function<void()>& backward, double tolerance = 1e-7);

}  // namespace smlp::test
