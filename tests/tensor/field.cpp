#include "tests/tensor/field.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/random.h"

namespace smlp::test {

namespace {
constexpr std::byte guard{0xA5};
constexpr std::int64_t margin = 64;  // bytes before and after

std::uint16_t to_bf16(double value) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

double from_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

// To the nearest, an even fraction where two are: ldexp and nearbyint know how.
std::uint16_t to_f16(double wide) {
  const auto value = static_cast<double>(static_cast<float>(wide));
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (std::isnan(value)) return sign | 0x7E00;
  const double size = std::abs(value);
  if (size >= 65520) return sign | 0x7C00;
  const int exponent = std::max(size > 0 ? std::ilogb(size) : -14, -14);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));  // 1024 ... 2048, less where denormal
  return static_cast<std::uint16_t>(sign + ((exponent + 14) << 10) + steps);
}
}  // namespace

double round_to(DType type, double value) {
  if (type == DType::f64) return value;
  if (type == DType::bf16) return static_cast<double>(from_bf16(to_bf16(value)));
  if (type == DType::f16) return from_f16(to_f16(value));
  return static_cast<double>(static_cast<float>(value));
}

void (*settle_fields)() = [] {};

Field::Field(Shape shape, DType type, std::int64_t gap, std::int64_t shift)
    : shape_(shape), type_(type), gap_(gap), shift_(shift) {
  const std::int64_t rows = shape.last() == 0 ? 0 : shape.size() / shape.last();
  const std::int64_t elements = shift + rows * (shape.last() + gap);
  bytes_.assign(static_cast<std::size_t>(2 * margin + elements * size_of(type)), guard);
}

std::size_t Field::place(std::int64_t element) const {
  const std::int64_t width = shape_.last(), row = element / width, column = element % width;
  return static_cast<std::size_t>(margin + (shift_ + row * (width + gap_) + column) * size_of(type_));
}

TensorView Field::view() {
  TensorView view(bytes_.data() + margin + shift_ * size_of(type_), shape_, type_);
  std::int64_t step = shape_.last() + gap_;
  for (int i = shape_.rank() - 2; i >= 0; --i) {
    view.stride[static_cast<std::size_t>(i)] = step;
    step *= shape_[i];
  }
  return view;
}

void Field::set(const std::vector<double>& values) {
  ASSERT_EQ(static_cast<std::int64_t>(values.size()), shape_.size());
  settle_fields();
  for (std::int64_t i = 0; i < shape_.size(); ++i) {
    std::byte* to = bytes_.data() + place(i);
    const double value = values[static_cast<std::size_t>(i)];
    const auto put = [to](auto typed) { std::memcpy(to, &typed, sizeof typed); };
    switch (type_) {
      case DType::f64: put(value); break;
      case DType::f32: put(static_cast<float>(value)); break;
      case DType::bf16: put(to_bf16(value)); break;
      case DType::f16: put(to_f16(value)); break;
      case DType::i32: put(static_cast<std::int32_t>(value)); break;
      case DType::i64: put(static_cast<std::int64_t>(value)); break;
      default: put(static_cast<std::uint8_t>(value)); break;
    }
  }
}

void Field::randomize(std::uint64_t seed, double scale) {
  const RandomStream random(seed, "field");
  std::vector<double> values(static_cast<std::size_t>(shape_.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * (2 * random.uniform(i) - 1);
  set(values);
}

std::vector<double> Field::get() const {
  settle_fields();
  std::vector<double> values(static_cast<std::size_t>(shape_.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::byte* from = bytes_.data() + place(static_cast<std::int64_t>(i));
    const auto take = [from](auto typed) {
      std::memcpy(&typed, from, sizeof typed);
      return typed;
    };
    switch (type_) {
      case DType::f64: values[i] = take(double{}); break;
      case DType::f32: values[i] = static_cast<double>(take(float{})); break;
      case DType::bf16: values[i] = static_cast<double>(from_bf16(take(std::uint16_t{}))); break;
      case DType::f16: values[i] = from_f16(take(std::uint16_t{})); break;
      case DType::i32: values[i] = take(std::int32_t{}); break;
      case DType::i64: values[i] = static_cast<double>(take(std::int64_t{})); break;
      default: values[i] = take(std::uint8_t{}); break;
    }
  }
  return values;
}

std::vector<std::byte> Field::bytes() const {
  settle_fields();
  return {bytes_.begin(), bytes_.end()};
}

bool Field::guards_intact() const {
  settle_fields();
  const auto intact = [](auto first, auto last) {
    return std::all_of(first, last, [](std::byte byte) { return byte == guard; });
  };
  auto guards = bytes_.begin();
  for (std::int64_t first = 0; first < shape_.size(); first += shape_.last()) {
    const auto row = bytes_.begin() + static_cast<std::ptrdiff_t>(place(first));
    if (!intact(guards, row)) return false;
    guards = row + shape_.last() * size_of(type_);
  }
  return intact(guards, bytes_.end());
}

void expect_close(const char* what, const std::vector<double>& got, const std::vector<double>& wanted,
                  double tolerance) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool both_nan = std::isnan(got[i]) && std::isnan(wanted[i]);
    if (both_nan || got[i] == wanted[i] || std::abs(got[i] - wanted[i]) <= tolerance * (1 + std::abs(wanted[i]))) continue;
    if (++wrong <= 3) ADD_FAILURE() << what << "[" << i << "] is " << got[i] << ", not " << wanted[i];
  }
  EXPECT_EQ(wrong, 0u) << what << ": wrong elements of " << got.size();
}

}  // namespace smlp::test
