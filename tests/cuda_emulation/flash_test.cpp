// Which attention a library computes and which the backend's own products, whatever goes wrong between them. The results
// of both are held against plain loops by tests/tensor/attention_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "tensor/backend.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/flash_library.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

using emulation::flash_counts;
using emulation::flash_rules;
using testing::HasSubstr;

struct Sizes {
  std::int64_t sequences = 2, length = 40, heads = 4, width = 16;
  DType type = DType::bf16;
  std::int64_t shift = 0, gap = 8;  // elements that the first row, and each row, is off a multiple of 16 bytes
};

// Both passes; what they wrote, in one row.
class Attending {
 public:
  explicit Attending(const Sizes& s) : s_(s) {
    for (std::uint64_t i = 0; i < 9; ++i) {
      const Shape rows{s.sequences, s.length, s.heads * s.width};
      const Shape shape = i == 8 ? Shape{s.sequences, s.heads, s.length} : rows;
      fields_.emplace_back(shape, i == 8 ? DType::f32 : s.type, i == 8 ? 0 : s.gap, i == 8 ? 0 : s.shift);
      fields_.back().randomize(i, 1);
    }
  }
  void forward(Backend& backend) { backend.attention(call()); }
  std::vector<double> by(Backend& backend) {
    forward(backend);
    backend.attention_backward(call(), view(4), view(5), view(6), view(7));
    backend.synchronize();
    std::vector<double> all;
    for (const std::size_t i : {3, 8, 5, 6, 7}) {
      const auto values = fields_[i].get();
      all.insert(all.end(), values.begin(), values.end());
      EXPECT_TRUE(fields_[i].guards_intact()) << i;
    }
    return all;
  }

 private:
  TensorView view(std::size_t i) { return fields_[i].view(); }
  Attention call() { return {view(0), view(1), view(2), view(3), view(8), s_.heads}; }

  Sizes s_;
  std::vector<Field> fields_;
};

class FlashAttention : public testing::Test {
 protected:
  ~FlashAttention() override { SetUp(); }
  void SetUp() override {
    emulation::set_device_memory(emulation::default_device_memory);
    flash_rules() = {};
    flash_counts() = {};
  }
  // Rightly, whoever does it.
  std::vector<double> attend(const Sizes& s) {
    auto got = Attending(s).by(*cuda_);
    expect_close("attention", got, Attending(s).by(*cpu_), s.type == DType::f32 ? 2e-5 : 2e-2);
    return got;
  }
  std::unique_ptr<Backend> cpu_ = make_cpu_backend(), cuda_ = make_cuda_backend();
};

TEST_F(FlashAttention, IsTheLibrarysInNarrowTypes) {
  EXPECT_EQ(flash_counts().asked, 0) << "before there is attention";
  EXPECT_EQ(cuda_->attention_by(), "");
  for (const DType type : {DType::bf16, DType::f16}) attend({.type = type});
  EXPECT_EQ(flash_counts().forward, 2);
  EXPECT_EQ(flash_counts().backward, 2);
  EXPECT_EQ(cuda_->attention_by(), "attention is computed by the emulated library");
  attend({.type = DType::f32});
  EXPECT_EQ(flash_counts().forward, 2);
  EXPECT_THAT(cuda_->attention_by(), HasSubstr("where the emulated library can't: its flash form is for bf16 and f16"));
}

TEST_F(FlashAttention, TakesNothingThatDoesNotComeInWholePacks) {
  for (const Sizes& s : {Sizes{.shift = 1}, Sizes{.shift = 4}, Sizes{.gap = 4}, Sizes{.gap = 1}, Sizes{.width = 12},
                         Sizes{.length = 1}}) {
    attend(s);
    EXPECT_EQ(flash_counts().forward + flash_counts().backward, 0) << s.shift << " " << s.gap << " " << s.width;
  }
  attend({.shift = 8});
  EXPECT_EQ(flash_counts().forward, 1);
}

TEST_F(FlashAttention, IsPlannedOnceForEachLayout) {
  attend({});
  EXPECT_EQ(flash_counts().plans, 2) << "one for each pass";
  attend({});
  EXPECT_EQ(flash_counts().plans, 2);
  attend({.gap = 16});
  attend({.sequences = 3});
  attend({.type = DType::f16});
  attend({.heads = 2, .width = 32});
  EXPECT_EQ(flash_counts().plans, 10);
  EXPECT_EQ(flash_counts().asked, 1);
}

TEST_F(FlashAttention, AddsUpInAnyOrderOnlyWhereTheBackendMay) {
  for (const bool deterministic : {true, false}) {
    SCOPED_TRACE(deterministic);
    int backward = 0;
    flash_rules().declines = [&](const cuda::FlashCall& call) {
      backward += call.backward();
      EXPECT_EQ(call.deterministic, deterministic || !call.backward());
      return std::string();
    };
    cuda_ = make_cuda_backend({.deterministic = deterministic});
    attend({});
    EXPECT_EQ(backward, 1);
  }
}

TEST_F(FlashAttention, StaysTheLibrarysWhereThatFailsInARecordingAlone) {
  flash_rules().fails_recorded = true;
  Attending attending({});
  Recording recording;
  std::vector<WorkPart> work = {{[] {}, [&] { attending.forward(*cuda_); }}};
  for (int i = 0; i < 3; ++i) cuda_->repeat(recording, {}, work);
  cuda_->synchronize();
  EXPECT_THAT(recording.refusal, HasSubstr("can't be recorded"));
  EXPECT_EQ(flash_counts().forward, 3);
  EXPECT_EQ(cuda_->attention_by(), "attention is computed by the emulated library");
}

TEST_F(FlashAttention, IsComputedByProductsWhereThereIsNoLibrary) {
  flash_rules().absent = "libcudnn.so.9 is not here";
  attend({});
  attend({.type = DType::f16});
  EXPECT_EQ(flash_counts().asked, 1);
  EXPECT_EQ(flash_counts().plans, 0);
  EXPECT_EQ(cuda_->attention_by(),
            "attention is computed by products and a softmax between them, not by cuDNN: libcudnn.so.9 is not here");
}

TEST_F(FlashAttention, OnePassMayBeDeclined) {
  for (const bool backward : {true, false}) {
    SetUp();
    cuda_ = make_cuda_backend();
    flash_rules().declines = [backward](const cuda::FlashCall& call) {
      return std::string(call.backward() == backward ? "this pass is not for this card" : "");
    };
    attend({});
    attend({});
    EXPECT_EQ(flash_counts().forward, backward ? 2 : 0);
    EXPECT_EQ(flash_counts().backward, backward ? 0 : 2);
    EXPECT_EQ(flash_counts().plans, 2) << "what was declined is not asked for again";
    EXPECT_THAT(cuda_->attention_by(), HasSubstr("this pass is not for this card"));
  }
}

TEST_F(FlashAttention, IsComputedAnewWhereTheLibraryFailsUnderway) {
  flash_rules().workspace = [](const cuda::FlashCall& call) { return call.sequences * call.heads << 26; };
  flash_rules().runs_before_failure = 1;  // the second part of each pass
  attend({.heads = 8});
  EXPECT_EQ(flash_counts().forward, 1);
  EXPECT_EQ(flash_counts().backward, 1);
  attend({.heads = 8});
  EXPECT_EQ(flash_counts().forward, 1) << "a plan that failed is not tried again";
  EXPECT_THAT(cuda_->attention_by(), HasSubstr("the emulated library failed"));
}

// 64 MiB a head: four of them fit, in whole sequences if there are several.
TEST_F(FlashAttention, IsCutWhereItsWorkspaceWouldBeLarge) {
  const std::vector<std::pair<Sizes, int>> cases = {
      {{.sequences = 1, .heads = 4}, 1}, {{.sequences = 6, .heads = 2}, 3}, {{.sequences = 3, .heads = 2}, 3},
      {{.sequences = 2, .heads = 6}, 4}, {{.sequences = 1, .heads = 5}, 5}, {{.sequences = 2, .heads = 8}, 4}};
  for (const auto& [sizes, parts] : cases) {
    SCOPED_TRACE(testing::Message() << sizes.sequences << " sequences of " << sizes.heads << " heads");
    SetUp();
    cuda_ = make_cuda_backend();
    const auto whole = attend(sizes);
    flash_rules().workspace = [](const cuda::FlashCall& call) { return call.sequences * call.heads << 26; };
    flash_counts() = {};
    cuda_ = make_cuda_backend();
    EXPECT_EQ(attend(sizes), whole);
    EXPECT_EQ(flash_counts().forward, parts);
    EXPECT_EQ(flash_counts().backward, parts);
  }
}

TEST_F(FlashAttention, IsCutLessOnADeviceOfMoreMemory) {
  for (const auto& [gigabytes, parts] : {std::pair{8, 2}, {16, 2}, {32, 1}}) {
    SCOPED_TRACE(testing::Message() << gigabytes << " GiB");
    SetUp();
    emulation::set_device_memory(static_cast<std::size_t>(gigabytes) << 30);
    flash_rules().workspace = [](const cuda::FlashCall& call) { return call.sequences * call.heads << 26; };
    cuda_ = make_cuda_backend();
    attend({.sequences = 2, .heads = 4});
    EXPECT_EQ(flash_counts().backward, parts);
  }
}

TEST_F(FlashAttention, AnOldLibraryIsAskedForWholeTilesAlone) {
  for (const auto& [library, front_end, whole] :
       {std::tuple{91500u, 13200u, true}, {91501u, 11500u, true}, {91501u, 11600u, false}}) {
    SCOPED_TRACE(testing::Message() << library << " " << front_end);
    SetUp();
    flash_rules().version = {library, front_end};
    cuda_ = make_cuda_backend();
    attend({.length = 128});
    EXPECT_EQ(flash_counts().forward + flash_counts().backward, 2);
    attend({.length = 40});
    EXPECT_EQ(flash_counts().forward + flash_counts().backward, whole ? 2 : 4);
    const auto old = HasSubstr("not to be trusted with sequences of 40 tokens");
    EXPECT_THAT(cuda_->attention_by(), whole ? testing::Matcher<std::string>(old) : testing::Not(old));
  }
}

TEST_F(FlashAttention, IsNotCutWhereAPartWouldNotBeginWithAPack) {
  flash_rules().workspace = [](const cuda::FlashCall& call) { return call.sequences * call.heads << 26; };
  attend({.length = 41, .heads = 6});
  EXPECT_EQ(flash_counts().forward + flash_counts().backward, 0);
  EXPECT_THAT(cuda_->attention_by(), HasSubstr("sequences of 41 tokens can't be computed in parts"));
  attend({.sequences = 1, .length = 41});
  EXPECT_EQ(flash_counts().forward, 1) << "whole";
}

TEST_F(FlashAttention, OneHeadIsNeverCut) {
  flash_rules().workspace = [](const cuda::FlashCall&) { return std::int64_t{300} << 20; };
  attend({.sequences = 1, .heads = 2});
  EXPECT_EQ(flash_counts().forward, 2);
  EXPECT_EQ(flash_counts().backward, 2);
}

TEST_F(FlashAttention, IsComputedByProductsWhereItsWorkspaceDoesNotFit) {
  flash_rules().workspace = [](const cuda::FlashCall&) { return std::int64_t{1} << 41; };
  attend({});
  attend({});
  EXPECT_EQ(flash_counts().forward + flash_counts().backward, 0);
  EXPECT_THAT(cuda_->attention_by(), HasSubstr("the GPU has no 2199023255808 bytes"));
}

}  // namespace
}  // namespace smlp::test
