#include "launcher/choice_tail.h"

#include <fmt/format.h>

namespace smlp {

ChoiceTail::ChoiceTail(const RunDirectory& run) : file_(run.events()) { file_.pass_over_what_is_there(); }

void ChoiceTail::begin_attempt(int attempt, bool expects_checkpoint) {
  attempt_ = attempt;
  expects_checkpoint_ = expects_checkpoint;
  chosen_ = false;
  step_.reset();
  begun_at_.reset();
}

std::vector<std::string> ChoiceTail::read() {
  std::vector<std::string> sentences;
  if (!chosen_) file_.read([&](const nlohmann::json& line) { take(line, sentences); });
  return sentences;
}

void ChoiceTail::take(const nlohmann::json& line, std::vector<std::string>& sentences) {
  if (chosen_ || attempt_in(line) != attempt_) return;
  const auto event = text_in(line, "event");
  if (event == "checkpoint_rejected") {
    sentences.push_back(fmt::format("checkpoint rejected: {}", text_in(line, "detail")));
    expects_checkpoint_ = true;
  } else if (event == "data_changed") {
    sentences.push_back(text_in(line, "detail"));
  } else if (event == "start") {
    chosen_ = true;
    const auto step = integer_in(line, "step").value_or(0);
    begun_at_ = step;
    const auto* what = text_in(line, "tier") == "local" ? "the local save of step" : "checkpoint";
    if (step > 0) {
      step_ = step;
      sentences.push_back(fmt::format("attempt {}: going on from {} {}", attempt_, what, step));
    } else if (expects_checkpoint_) {
      sentences.push_back(fmt::format("attempt {}: beginning with the first step", attempt_));
    }
  }
}

}  // namespace smlp
