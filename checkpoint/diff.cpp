#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/reader.h"

namespace smlp {

namespace {

template <class T>
T element(std::span<const std::byte> bytes, std::int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + static_cast<std::size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

double value_at(std::span<const std::byte> bytes, std::int64_t i, DType type) {
  switch (type) {
    case DType::f64:
      return element<double>(bytes, i);
    case DType::f32:
      return element<float>(bytes, i);
    case DType::bf16:
      return std::bit_cast<float>(std::uint32_t{element<std::uint16_t>(bytes, i)} << 16);
    case DType::f16:
      return half_value(element<std::uint16_t>(bytes, i));
    case DType::i32:
      return element<std::int32_t>(bytes, i);
    case DType::i64:
      return static_cast<double>(element<std::int64_t>(bytes, i));
    case DType::u8:
      return element<std::uint8_t>(bytes, i);
  }
  return 0;
}

std::string place_text(const Shape& shape, std::int64_t index) {
  std::vector<std::int64_t> place(static_cast<std::size_t>(shape.rank()));
  for (int i = shape.rank() - 1; i >= 0; --i) {
    place[static_cast<std::size_t>(i)] = index % shape[i];
    index /= shape[i];
  }
  return fmt::format("[{}]", fmt::join(place, ", "));
}

// Adds up what differs between two equally long runs of elements, block by block.
class Comparison {
 public:
  explicit Comparison(const LogicalTensor& tensor) : tensor_(tensor) {}

  void compare(std::int64_t first, std::span<const std::byte> a, std::span<const std::byte> b) {
    const auto size = static_cast<std::size_t>(size_of(tensor_.dtype));
    for (std::size_t at = 0; at < a.size(); at += size) {
      if (std::memcmp(a.data() + at, b.data() + at, size) == 0) continue;
      const auto index = static_cast<std::int64_t>(at / size);
      const double x = value_at(a, index, tensor_.dtype), y = value_at(b, index, tensor_.dtype);
      if (found_.elements++ == 0) {
        found_.first = first + index;
        first_values_ = x == y ? fmt::format("{} against {}, equal but for their bits", x, y)
                               : fmt::format("{} against {}", x, y);
      }
      const double distance = std::abs(x - y);
      if (std::isnan(distance)) ++not_numbers_;
      if (distance > found_.largest) found_.largest = distance;
    }
  }

  TensorDifference result() const {
    auto difference = found_;
    difference.name = tensor_.name;
    difference.what = fmt::format("first differs at {}: {}; largest difference {:.6g}; {} of {} elements",
                                  place_text(tensor_.shape, found_.first), first_values_, found_.largest,
                                  found_.elements, tensor_.shape.size());
    if (not_numbers_ > 0) difference.what += fmt::format(", {} of them with NaN", not_numbers_);
    return difference;
  }

 private:
  const LogicalTensor& tensor_;
  TensorDifference found_;
  std::string first_values_;
  std::int64_t not_numbers_ = 0;
};

TensorDifference compare_tensor(CheckpointReader& a, CheckpointReader& b, const LogicalTensor& tensor) {
  Comparison comparison(tensor);
  std::vector<std::byte> other;
  a.read(tensor, 0, tensor.shape.size(), [&](std::int64_t first, std::span<const std::byte> bytes) {
    other.clear();
    const auto count = static_cast<std::int64_t>(bytes.size()) / size_of(tensor.dtype);
    b.read(tensor, first, count, [&](std::int64_t, std::span<const std::byte> part) {
      other.insert(other.end(), part.begin(), part.end());
    });
    comparison.compare(first, bytes, other);
  });
  return comparison.result();
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}
template <class T>
bool same_bits(const T& a, const T& b) {
  return a == b;
}

std::string shown(const std::string& text) { return text; }
template <class T>
std::string shown(const std::vector<T>& values) {
  constexpr std::size_t most = 8;
  if (values.size() == 1) return fmt::format("{}", values[0]);
  const auto part = std::span(values).first(std::min(values.size(), most));
  return fmt::format("[{}{}]", fmt::join(part, ", "), values.size() > most ? ", ..." : "");
}

template <class Map>
void compare_state(const char* kind, const Map& a, const Map& b, std::vector<TensorDifference>& found) {
  std::set<std::string> names;
  for (const auto& [name, value] : a) names.insert(name);
  for (const auto& [name, value] : b) names.insert(name);
  for (const auto& name : names) {
    const auto x = a.find(name), y = b.find(name);
    if (x != a.end() && y != b.end() && same_bits(x->second, y->second)) continue;
    const auto text = [&](const auto& place, const Map& of) {
      return place == of.end() ? "nothing" : shown(place->second);
    };
    TensorDifference difference;
    difference.name = fmt::format("run state: {}.{}", kind, name);
    difference.what = fmt::format("{} against {}", text(x, a), text(y, b));
    found.push_back(std::move(difference));
  }
}

TensorDifference unlike(const std::string& name, const std::string& what) {
  TensorDifference difference;
  difference.name = name;
  difference.what = what;
  return difference;
}

}  // namespace

std::vector<TensorDifference> difference_of(const RunState& a, const RunState& b) {
  std::vector<TensorDifference> found;
  compare_state("integers", a.integers, b.integers, found);
  compare_state("numbers", a.numbers, b.numbers, found);
  compare_state("texts", a.texts, b.texts, found);
  return found;
}

std::vector<TensorDifference> diff_checkpoints(const std::filesystem::path& a,
                                               const std::filesystem::path& b) {
  CheckpointReader first(a), second(b);
  const auto digests_a = digest_tensors(a), digests_b = digest_tensors(b);
  auto found = difference_of(first.manifest().state, second.manifest().state);
  for (const auto& tensor : first.manifest().tensors) {
    const auto* other = second.manifest().find(tensor.name);
    if (other == nullptr) {
      found.push_back(unlike(tensor.name, fmt::format("only in {}", a.string())));
    } else if (other->shape != tensor.shape || other->dtype != tensor.dtype) {
      found.push_back(
          unlike(tensor.name, fmt::format("{} {} against {} {}", name_of(tensor.dtype), tensor.shape.text(),
                                          name_of(other->dtype), other->shape.text())));
    } else if (digests_a.at(tensor.name) != digests_b.at(tensor.name)) {
      found.push_back(compare_tensor(first, second, tensor));
    }
  }
  for (const auto& tensor : second.manifest().tensors) {
    if (first.manifest().find(tensor.name) == nullptr) {
      found.push_back(unlike(tensor.name, fmt::format("only in {}", b.string())));
    }
  }
  return found;
}

}  // namespace smlp
