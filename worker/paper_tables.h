// What the paper prints about the sizes of its models, beside which `plan --paper` puts our counts; and where the paper
// contradicts itself. Rows name a job file of examples/paper/, whose text is part of the program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace smlp {

enum class Counted { parameters, non_expert, expert, multiply_adds };

struct PaperNumber {
  Counted what;
  double value;      // in units of one
  const char* note;  // where the paper says otherwise about it, or ""
};

struct PaperRow {
  std::string model;
  std::string job;  // "small-base"; or for an operation of table 3: "attention", "gate 16", "smoe"
  std::vector<PaperNumber> numbers;
};

struct PaperTable {
  int number;
  std::string title;
  std::vector<PaperRow> rows;
  std::vector<std::string> contradictions;
};

const std::vector<PaperTable>& paper_tables();

// The text of examples/paper/NAME.toml; "" where there is none of that name.
std::string_view paper_job(std::string_view name);

}  // namespace smlp
