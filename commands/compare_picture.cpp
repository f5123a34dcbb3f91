#include "commands/compare_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/leftovers.h"
#include "core/program.h"
#include "core/utf8.h"

namespace smlp {

namespace {

constexpr double patience_seconds = 60;
constexpr double tallest = 2.5;  // times the worst of the best perplexities: what lies above is cut off

// Between single quotes gnuplot reads nothing but the quote itself, and a doubled one not in every place: a name's
// apostrophes are printed as typographic ones.
std::string quoted(std::string text) {
  for (auto at = text.find('\''); at != std::string::npos; at = text.find('\'', at)) text.replace(at, 1, "\u2019");
  return "'" + text + "'";
}

bool drawn(const Evaluated& point) { return point.step > 0 && std::isfinite(point.perplexity()); }

struct Scale {
  double unit;
  const char* name;
};

Scale time_scale(const std::vector<Curve>& curves) {
  double longest = 0;
  for (const auto& curve : curves) {
    for (const auto& point : curve.points) longest = std::max(longest, point.seconds);
  }
  return longest > 2 * 3600 ? Scale{3600, "hours"} : longest > 2 * 60 ? Scale{60, "minutes"} : Scale{1, "seconds"};
}

double top_of(const std::vector<Curve>& curves) {
  double worst_best = 0, most = 0;
  for (const auto& curve : curves) {
    double best = HUGE_VAL;
    for (const auto& point : curve.points) {
      if (!drawn(point)) continue;
      best = std::min(best, point.perplexity());
      most = std::max(most, point.perplexity());
    }
    if (std::isfinite(best)) worst_best = std::max(worst_best, best);
  }
  return std::min(most, tallest * worst_best) * 1.02;
}

std::string panel(const std::vector<Curve>& curves, int column, const std::string& label, bool key) {
  auto text = fmt::format("set xlabel {}\nset key {}\nplot", quoted(label), key ? "top right" : "off");
  for (std::size_t i = 0; i < curves.size(); ++i) {
    text += fmt::format("{} $curve{} using {}:3 with linespoints linetype {} pointsize 0.5 title {}",
                        i == 0 ? "" : ", \\\n    ", i, column, i + 1, quoted(curves[i].title));
  }
  return text + "\n";
}

std::string script(const std::vector<Curve>& curves) {
  const auto time = time_scale(curves);
  std::string text = "set terminal svg size 1200,540 dynamic noenhanced font 'sans,13' background rgb 'white'\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    text += fmt::format("$curve{} << EOD\n", i);
    for (const auto& point : curves[i].points) {
      if (!drawn(point)) continue;
      text += fmt::format("{} {:.6g} {:.6g}\n", point.step, point.seconds / time.unit, point.perplexity());
    }
    text += "EOD\n";
  }
  text += "set multiplot layout 1,2\nset grid\nset ylabel 'validation perplexity'\n";
  text += fmt::format("set yrange [*:{:.6g}]\n", top_of(curves));
  text += panel(curves, 1, "steps", true);
  text += panel(curves, 2, fmt::format("training time, {}", time.name), false);
  return text + "unset multiplot\n";
}

}  // namespace

std::string draw_curves(const std::vector<Curve>& curves) {
  std::vector<Curve> with_points;
  std::copy_if(curves.begin(), curves.end(), std::back_inserter(with_points), [](const Curve& curve) {
    return std::any_of(curve.points.begin(), curve.points.end(), drawn);
  });
  if (with_points.empty()) {
    throw Error(ExitCode::configuration, "there is nothing to draw: none of these runs was evaluated after a step");
  }
  if (!is_on_path("gnuplot")) {
    throw Error(ExitCode::unavailable, "the picture needs gnuplot, which is not here: install the package gnuplot-nox "
                                       "(scripts/setup.sh does), or leave out --svg");
  }
  constexpr const char* prefix = "smlp-picture-";
  constexpr const char* what = "the picture's data";
  const auto parent = temporary_folder(what);
  sweep_leftovers(parent, prefix);
  const OwnFolder folder(parent, prefix, what);
  const auto file = folder.path() / "script";
  write_atomically(file, script(with_points));
  const auto answer = run_program({"gnuplot", file.string()}, own_environment(), patience_seconds);
  if (answer.code != 0 || answer.out.find("</svg>") == std::string::npos) {
    const auto words = answer.failure.empty() ? shortened(answer.err, 300) : answer.failure;
    throw Error(ExitCode::io_failed, fmt::format("gnuplot drew no picture: {}", words.empty() ? "it said nothing" : words));
  }
  return answer.out;
}

}  // namespace smlp
