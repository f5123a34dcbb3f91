#include "launcher/progress_line.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "core/clock.h"
#include "core/quantities.h"
#include "core/utf8.h"

namespace smlp {

namespace {

constexpr double refresh_seconds = 0.2, plain_seconds = 5;
constexpr std::size_t at_once = 1024;          // what a terminal or pipe takes that takes anything
constexpr std::size_t most_unread = 64 << 10;  // kept for whoever reads on
constexpr int last_words_milliseconds = 2000;

// Also where nobody will ever read again: writing fails at once then.
bool takes_text(std::FILE* out, int milliseconds) {
  pollfd place{.fd = fileno(out), .events = POLLOUT, .revents = 0};
  return ::poll(&place, 1, milliseconds) != 0;
}

}  // namespace

std::string progress_text(const StepFacts& facts, const JobConfig& job, double unix_now) {
  auto text = fmt::format("step {}/{}", facts.step, job.train.steps);
  if (facts.loss) text += fmt::format("  loss {:.3f}", *facts.loss);
  if (facts.validation_loss) text += fmt::format("  valid {:.3f}", *facts.validation_loss);
  if (facts.tokens_per_second) text += fmt::format("  {} tokens/s", count_text(*facts.tokens_per_second));
  if (facts.flops_share) text += fmt::format("  {:.0f} % of peak", 100 * *facts.flops_share);
  if (facts.expert_balance) text += fmt::format("  balance {:.2f}", *facts.expert_balance);
  if (facts.checkpoint_step && *facts.checkpoint_step > 0 && facts.checkpoint_time && *facts.checkpoint_time > 0) {
    text += fmt::format("  checkpoint {} ({} ago)", *facts.checkpoint_step,
                        duration_text(std::max(0.0, unix_now - *facts.checkpoint_time)));
  } else {
    text += "  no checkpoint yet";
  }
  if (facts.tokens_per_second && *facts.tokens_per_second > 0) {
    const auto step_tokens = static_cast<double>(job.train.global_batch * job.model.context);
    const auto left = static_cast<double>(std::max<std::int64_t>(0, job.train.steps - facts.step));
    text += fmt::format("  {} left", duration_text(left * step_tokens / *facts.tokens_per_second));
  }
  return text;
}

ProgressLine::ProgressLine(const JobConfig& job, std::FILE* out)
    : job_(job), out_(out), terminal_(isatty(fileno(out)) == 1) {}

ProgressLine::~ProgressLine() {
  if (line_open_) unread_ += '\n';
  write_what_is_taken(last_words_milliseconds);
}

void ProgressLine::write(const std::string& text) {
  if (unread_.size() + text.size() <= most_unread) unread_ += text;
  write_what_is_taken(0);
}

// A full disk under the standard output, or its terminal gone, ends no run.
void ProgressLine::write_what_is_taken(int milliseconds) {
  while (!unread_.empty() && takes_text(out_, milliseconds)) {
    const auto part = unread_.substr(0, at_once);
    std::fputs(part.c_str(), out_);
    std::fflush(out_);
    unread_.erase(0, part.size());
  }
}

void ProgressLine::clear() {
  if (line_open_) write("\r\033[K");
  line_open_ = false;
}

void ProgressLine::show(const StepFacts& facts, double now) {
  const bool first = shown_step_ < 0 || facts.step < shown_step_;
  if (now - shown_at_ < (terminal_ ? refresh_seconds : plain_seconds) && !first) return;
  if (!terminal_ && facts.step == shown_step_) return;
  write_what_is_taken(0);
  if (!unread_.empty() || !takes_text(out_, 0)) return;
  shown_at_ = now;
  shown_step_ = facts.step;
  auto text = progress_text(facts, job_, unix_seconds());
  if (!terminal_) {
    write(text + "\n");
  } else {
    winsize size{};
    if (ioctl(fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 2) text = shortened(text, size.ws_col - 2u);
    write(fmt::format("\r{}\033[K", text));
    line_open_ = true;
  }
}

void ProgressLine::note(const std::string& sentence) {
  clear();
  write(sentence + "\n");
}

void ProgressLine::finish(const StepFacts& facts) {
  if (!terminal_ && facts.step == shown_step_) return;
  note(progress_text(facts, job_, unix_seconds()));
  shown_step_ = facts.step;
}

}  // namespace smlp
