// Every file of the golden folder against this implementation in f64: |a - b| <= 1e-9 · max(1, max |b|) over
// each tensor. A model that this build lacks is skipped by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <numeric>

#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "tests/golden/golden_file.h"

namespace smlp {
namespace {

using test::GoldenFile;
using test::GoldenTensor;

void expect_close(const std::string& what, const std::vector<double>& ours,
                  const std::vector<double>& theirs) {
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  double most = 1;
  for (const double b : theirs) most = std::max(most, std::abs(b));
  for (std::size_t i = 0; i < ours.size(); ++i) {
    ASSERT_NEAR(ours[i], theirs[i], 1e-9 * most) << what << "[" << i << "]";
  }
}

class Rehearsal {
 public:
  explicit Rehearsal(const GoldenFile& golden)
      : golden_(golden), rows_(golden.batch * golden.config->context) {
    store_.seal(*backend_, DType::f64, 1, false);
    c_.sequences = golden.batch;
    c_.length = golden.config->context;
    c_.tokens = upload(golden.tokens);
    c_.targets = upload(golden.targets);
    c_.loss_scale = take({1}, DType::f64);
    predicted_ = static_cast<double>(golden.batch * model_->predicted(c_.length));
    backend_->fill(c_.loss_scale, 1 / predicted_);
    if (!has_auxiliary_loss(golden.config->router)) return;
    c_.auxiliary = take({golden.batch / golden.config->group_sequences, 2}, DType::f64);
    c_.auxiliary_scale = c_.loss_scale;  // every token is predicted
  }
  ~Rehearsal() {
    for (void* block : blocks_) backend_->release(block);
  }

  // `garbage`: what the upper triangles hold; empty: what the file says.
  void load_weights(std::optional<double> garbage) {
    ASSERT_EQ(store_.parameters().size(), golden_.weights.size());
    for (auto& parameter : store_.parameters()) {
      ASSERT_TRUE(golden_.weights.contains(parameter.name)) << parameter.name;
      GoldenTensor weight = golden_.weights.at(parameter.name);
      ASSERT_EQ(static_cast<int>(weight.shape.size()), parameter.shape.rank()) << parameter.name;
      for (int i = 0; i < parameter.shape.rank(); ++i) {
        ASSERT_EQ(weight.shape[static_cast<std::size_t>(i)], parameter.shape[i]) << parameter.name;
      }
      const auto side = static_cast<std::size_t>(parameter.shape.last());
      for (std::size_t i = 0; garbage && parameter.lower_triangle && i < weight.data.size(); ++i) {
        if (i % side > i / side % side) weight.data[i] = *garbage;
      }
      backend_->upload(weight.data.data(), parameter.value);
    }
  }

  std::vector<double> logits() {
    scratch_.reset();
    std::vector<std::int32_t> rows(static_cast<std::size_t>(rows_));
    std::iota(rows.begin(), rows.end(), 0);
    const TensorView out = take({rows_, golden_.config->vocabulary}, DType::f64);
    model_->forward_logits(c_, upload(rows), out);
    return read(out);
  }

  // Forward and backward; the mean loss.
  double pass(GradientSync& sync) {
    scratch_.reset();
    store_.zero_grad(*backend_);
    if (c_.auxiliary) backend_->fill(c_.auxiliary, 0);
    const TensorView row_loss = take({rows_}, DType::f64);
    model_->forward_loss(c_, row_loss);
    model_->backward(c_, [&](int k) { sync.block_done(k); });
    sync.finish();
    const auto losses = read(row_loss);
    double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
    if (c_.auxiliary) {
      sum += golden_.config->router.softmax.auxiliary.total(read(c_.auxiliary),
                                                            golden_.config->group_sequences * c_.length);
    }
    return sum / predicted_;
  }

  void compare_gradients() {
    for (const auto& parameter : store_.parameters()) {
      expect_close(parameter.name, read(parameter.grad), golden_.gradients.at(parameter.name).data);
    }
  }

  void train() {
    AdamW adamw(*backend_, store_, golden_.optimizer);
    GradientSync sync(*backend_, store_, grid_, model_->blocks());
    std::vector<double> losses, norms;
    for (std::size_t step = 0; step < golden_.losses.size(); ++step) {
      losses.push_back(pass(sync));
      if (step == 0) compare_gradients();
      adamw.prepare(golden_.learning_rate);
      sync.squared_norm(adamw.control());
      norms.push_back(std::sqrt(adamw.squared_norm()));
      adamw.apply();
      ASSERT_TRUE(adamw.finish(adamw.squared_norm()));
    }
    EXPECT_NEAR(losses.front(), golden_.loss, 1e-9 * std::max(1.0, golden_.loss));
    expect_close("losses", losses, golden_.losses);
    expect_close("gradient norms", norms, golden_.gradient_norms);
  }

 private:
  TensorView take(Shape shape, DType type) {
    blocks_.push_back(backend_->allocate(shape.size() * size_of(type)));
    return {blocks_.back(), shape, type};
  }
  TensorView upload(const std::vector<std::int32_t>& values) {
    const TensorView view = take({static_cast<std::int64_t>(values.size())}, DType::i32);
    backend_->upload(values.data(), view);
    return view;
  }
  std::vector<double> read(TensorView view) {
    std::vector<double> values(static_cast<std::size_t>(view.size()));
    backend_->download(view, values.data());
    return values;
  }

  const GoldenFile& golden_;
  std::int64_t rows_;
  double predicted_ = 0;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  ProcessGrid grid_ = ProcessGrid::cut(make_solo(*backend_), 1);
  ParameterStore store_;
  std::unique_ptr<Model> model_ = make_model(*golden_.config, store_, {*grid_.experts});
  Arena scratch_{*backend_};
  Context c_{*backend_, scratch_};
  std::vector<void*> blocks_;
};

class Golden : public testing::TestWithParam<std::filesystem::path> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Golden);

TEST_P(Golden, AgreesWithTheReference) {
  const GoldenFile golden = test::read_golden(GetParam());
  if (!golden.config) GTEST_SKIP() << golden.name << ": this build has no " << golden.missing;
  // What stands above the diagonals must not matter.
  for (const std::optional<double> garbage :
       {std::optional<double>{}, std::optional<double>(std::numeric_limits<double>::quiet_NaN())}) {
    Rehearsal run(golden);
    run.load_weights(garbage);
    expect_close("logits", run.logits(), golden.logits);
    run.train();
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

// The file's name as far as a test may carry it; a second file that comes to the same has its place added.
std::string name_of(const std::filesystem::path& path) {
  std::string name = path.stem().string();
  for (char& letter : name) {
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(File, Golden, testing::ValuesIn(test::golden_files()), [](const auto& info) {
  const auto files = test::golden_files();
  const std::string name = name_of(info.param);
  const auto before = std::count_if(files.begin(), files.begin() + static_cast<std::ptrdiff_t>(info.index),
                                    [&](const auto& file) { return name_of(file) == name; });
  return before == 0 ? name : name + std::to_string(info.index);
});

TEST(GoldenFolder, HoldsFiles) {
  if (!std::filesystem::exists(test::golden_folder())) {
    GTEST_SKIP() << "there is no " << test::golden_folder() << " (SMLP_GOLDEN_DIR names another folder)";
  }
  EXPECT_FALSE(test::golden_files().empty());
}

}  // namespace
}  // namespace smlp
