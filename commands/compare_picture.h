// Curves of perplexity, over steps and over time, drawn by gnuplot as one SVG.
#pragma once

#include <string>
#include <vector>

#include "launcher/run_results.h"

namespace smlp {

struct Curve {
  std::string title;  // any text: what it holds is shown, never obeyed
  std::vector<Evaluated> points;
};

// Throws Error(unavailable) where there is no gnuplot, Error(io_failed) where it fails. Points of the untrained model
// are left out: beside them everything else would lie on the axis.
std::string draw_curves(const std::vector<Curve>& curves);

}  // namespace smlp
