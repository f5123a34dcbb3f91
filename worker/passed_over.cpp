#include "worker/passed_over.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

PassedOver PassedOver::parse(const std::string& text, const std::string& file) {
  PassedOver result;
  try {
    const auto json = parse_json(text);
    if (json.is_discarded()) throw std::runtime_error("it is no JSON, or nested too deep");
    const auto flat = whole_numbers(json.at("sequences"));
    result.spikes = whole_numbers(json.at("spikes"));
    for (std::size_t i = 0; i < flat.size(); ++i) {
      if (flat[i] < 0 || (i % 2 == 1 && flat[i] <= flat[i - 1])) throw std::runtime_error("a range is empty");
    }
    result.add(flat);
  } catch (const std::exception& error) {
    throw Error(ExitCode::bad_data,
                fmt::format("{} can't be read ({}); it says which data the run left out after a spike of its loss: "
                            "restore it, or remove it to train on that data after all", file, error.what()));
  }
  return result;
}

std::string PassedOver::text() const {
  return json_text(nlohmann::json{{"sequences", flat()}, {"spikes", spikes}}, 2) + "\n";
}

void PassedOver::add(std::int64_t from, std::int64_t to) {
  for (const auto& range : ranges_) {
    if (range.to < from || range.from > to) continue;
    from = std::min(from, range.from);
    to = std::max(to, range.to);
  }
  std::erase_if(ranges_, [&](const Range& range) { return range.from >= from && range.to <= to; });
  ranges_.push_back({from, to});
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.from < b.from; });
}

void PassedOver::add(std::span<const std::int64_t> flat) {
  expect(flat.size() % 2 == 0, "ranges of sequences passed over are pairs");
  for (std::size_t i = 0; i < flat.size(); i += 2) add(flat[i], flat[i + 1]);
}

std::vector<std::int64_t> PassedOver::flat() const {
  std::vector<std::int64_t> flat;
  for (const auto& range : ranges_) flat.insert(flat.end(), {range.from, range.to});
  return flat;
}

std::int64_t PassedOver::next(std::int64_t position, std::int64_t count) const {
  for (const auto& range : ranges_) {
    if (range.from < position + count && range.to > position) position = range.to;
  }
  return position;
}

std::int64_t PassedOver::back(std::int64_t position, std::int64_t count) const {
  for (auto range = ranges_.rbegin(); range != ranges_.rend() && position - range->to < count; ++range) {
    if (range->to > position) continue;
    count -= position - range->to;
    position = range->from;
  }
  return std::max<std::int64_t>(0, position - count);
}

std::int64_t PassedOver::before(std::int64_t position) const {
  std::int64_t sum = 0;
  for (const auto& range : ranges_) sum += std::max<std::int64_t>(0, std::min(range.to, position) - range.from);
  return sum;
}

}  // namespace smlp
