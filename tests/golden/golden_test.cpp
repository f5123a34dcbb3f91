// Every file of the golden folder against this implementation. In f64 |a - b| <= 1e-9 · max(1, max |b|) over each tensor;
// in narrower types the distance of each tensor's values to the reference's is a part of their length (tolerance_of).
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <numeric>

#include "optim/adamw.h"
#include "optim/gradient_sync.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_file.h"

namespace smlp {
namespace {

using test::GoldenCase;
using test::GoldenFile;
using test::GoldenTensor;
using Values = std::vector<double>;

double tolerance_of(DType type) {
  return type == DType::f64 ? 1e-9 : type == DType::f32 ? 2e-5 : type == DType::f16 ? 1e-2 : 8e-2;
}

double length_of(const Values& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

class Rehearsal {
 public:
  Rehearsal(const GoldenFile& golden, const GoldenCase& on)
      : golden_(golden), type_(on.type), rows_(golden.batch * golden.config->context), backend_(on.make()) {
    store_.seal(*backend_, type_, 1, false);
    c_.sequences = golden.batch;
    c_.length = golden.config->context;
    c_.tokens = upload(golden.tokens);
    c_.targets = upload(golden.targets);
    c_.loss_scale = take({1}, DType::f64);
    predicted_ = static_cast<double>(golden.batch * model_->predicted(c_.length));
    backend_->fill(c_.loss_scale, gradient_scale_ / predicted_);
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
      write(weight.data, parameter.value);
    }
  }

  void compare_logits() {
    scratch_.reset();
    std::vector<std::int32_t> rows(static_cast<std::size_t>(rows_));
    std::iota(rows.begin(), rows.end(), 0);
    const TensorView out = take({rows_, golden_.config->vocabulary}, type_);
    model_->forward_logits(c_, upload(rows), out);
    expect_close("logits", read(out), golden_.logits);
  }

  void train() {
    AdamW adamw(*backend_, store_, golden_.optimizer);
    GradientSync sync(*backend_, store_, grid_, model_->blocks());
    Values losses, norms;
    for (std::size_t step = 0; step < golden_losses_.size(); ++step) {
      losses.push_back(pass(sync));
      if (step == 0) compare_gradients();
      adamw.prepare(golden_.learning_rate, 1 / gradient_scale_);
      sync.squared_norm(adamw.control());
      norms.push_back(std::sqrt(adamw.squared_norm()) / gradient_scale_);
      adamw.apply();
      ASSERT_TRUE(adamw.finish(adamw.squared_norm()));
    }
    EXPECT_NEAR(losses.front(), golden_.loss, tolerance_of(type_) * std::max(1.0, golden_.loss));
    expect_close("losses", losses, golden_losses_);
    expect_close("gradient norms", norms, golden_norms_);
  }

 private:
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
    double whole = 0;
    for (const auto& [name, gradient] : golden_.gradients) whole = std::hypot(whole, length_of(gradient.data));
    for (const auto& parameter : store_.parameters()) {
      auto ours = read(parameter.grad);
      for (auto& value : ours) value /= gradient_scale_;
      // What is zero but for rounding is as near as the whole gradient is long.
      expect_close(parameter.name, ours, golden_.gradients.at(parameter.name).data, 1e-2 * whole);
    }
  }

  void expect_close(const std::string& what, const Values& ours, const Values& theirs, double least = 0) {
    ASSERT_EQ(ours.size(), theirs.size()) << what;
    const double tolerance = tolerance_of(type_);
    if (type_ != DType::f64) {
      Values apart(ours.size());
      std::transform(ours.begin(), ours.end(), theirs.begin(), apart.begin(), std::minus());
      EXPECT_LE(length_of(apart), tolerance * std::max(least, length_of(theirs))) << what;
      return;
    }
    double most = 1;
    for (const double b : theirs) most = std::max(most, std::abs(b));
    for (std::size_t i = 0; i < ours.size(); ++i) {
      ASSERT_NEAR(ours[i], theirs[i], tolerance * most) << what << "[" << i << "]";
    }
  }

  TensorView take(Shape shape, DType type) {
    blocks_.push_back(backend_->allocate(shape.size() * size_of(type)));
    return {blocks_.back(), shape, type};
  }
  TensorView upload(const std::vector<std::int32_t>& values) {
    const TensorView view = take({static_cast<std::int64_t>(values.size())}, DType::i32);
    backend_->upload(values.data(), view);
    return view;
  }
  // 16 bits are written and read by way of f32.
  void write(const Values& values, TensorView to) {
    if (to.dtype == DType::f64) return backend_->upload(values.data(), to);
    const std::vector<float> rounded(values.begin(), values.end());
    const TensorView wide = to.dtype == DType::f32 ? to : take(to.shape, DType::f32);
    backend_->upload(rounded.data(), wide);
    if (to.dtype != DType::f32) backend_->copy(wide, to);
    backend_->synchronize();
  }
  Values read(TensorView view) {
    Values values(static_cast<std::size_t>(view.size()));
    if (view.dtype == DType::f64) {
      backend_->download(view, values.data());
      return values;
    }
    const TensorView wide = view.dtype == DType::f32 ? view : take(view.shape, DType::f32);
    if (view.dtype != DType::f32) backend_->copy(view, wide);
    std::vector<float> narrow(values.size());
    backend_->download(wide, narrow.data());
    return {narrow.begin(), narrow.end()};
  }

  // In narrow types a token between two experts comes to the other one sooner or later (gshard-drop's in step 10).
  Values first_steps(const Values& of) const {
    return {of.begin(), type_ == DType::f64 ? of.end() : of.begin() + std::min<std::ptrdiff_t>(5, std::ssize(of))};
  }

  const GoldenFile& golden_;
  DType type_;
  const Values golden_losses_ = first_steps(golden_.losses), golden_norms_ = first_steps(golden_.gradient_norms);
  std::int64_t rows_;
  double gradient_scale_ = type_ == DType::f16 ? 256 : 1;  // small gradients would be zero there
  double predicted_ = 0;
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_ = ProcessGrid::cut(make_solo(*backend_), 1);
  ParameterStore store_;
  std::unique_ptr<Model> model_ = make_model(*golden_.config, store_, {*grid_.experts});
  Arena scratch_{*backend_};
  Context c_{*backend_, scratch_};
  std::vector<void*> blocks_;
};

using Param = std::tuple<std::filesystem::path, GoldenCase>;
class Golden : public testing::TestWithParam<Param> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Golden);

TEST_P(Golden, AgreesWithTheReference) {
  const auto& [file, on] = GetParam();
  const GoldenFile golden = test::read_golden(file);
  if (!golden.config) GTEST_SKIP() << golden.name << ": this build has no " << golden.missing;
  // What stands above the diagonals must not matter.
  std::vector<std::optional<double>> above = {std::numeric_limits<double>::quiet_NaN()};
  if (on.type == DType::f64) above.emplace_back();
  for (const auto& garbage : above) {
    Rehearsal run(golden, on);
    run.load_weights(garbage);
    run.compare_logits();
    run.train();
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

// The file's name as far as a test may carry it; a second file that comes to the same has its place added.
std::string name_of(const std::filesystem::path& path) {
  const auto letters_of = [](const std::filesystem::path& file) {
    std::string name = file.stem().string();
    for (char& letter : name) {
      if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
    }
    return name;
  };
  const auto files = test::golden_files();
  const auto here = std::find(files.begin(), files.end(), path);
  const auto name = letters_of(path);
  if (std::none_of(files.begin(), here, [&](const auto& file) { return letters_of(file) == name; })) return name;
  return name + std::to_string(here - files.begin());
}

std::string name_of_case(const testing::TestParamInfo<Param>& info) {
  const auto& [file, on] = info.param;
  return name_of(file) + "_" + name_of(on.type) + "_" + on.backend;
}

INSTANTIATE_TEST_SUITE_P(File, Golden,
                         testing::Combine(testing::ValuesIn(test::golden_files()),
                                          testing::ValuesIn(test::golden_cases())),
                         name_of_case);

TEST(GoldenFolder, HoldsFiles) {
  if (std::getenv("SMLP_GOLDEN_DIR") == nullptr && !std::filesystem::exists(test::golden_folder())) {
    GTEST_SKIP() << "there is no " << test::golden_folder() << " (SMLP_GOLDEN_DIR names another folder)";
  }
  EXPECT_FALSE(test::golden_files().empty()) << test::golden_folder();
}

}  // namespace
}  // namespace smlp
