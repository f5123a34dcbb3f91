#include "params/parameter_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "params/initial.h"

namespace smlp {

namespace {

constexpr std::int64_t member_alignment = 64, part_alignment = 8;  // elements
constexpr std::int64_t chunk = std::int64_t{1} << 22;

TensorView part_of(const TensorView& segment, const Parameter& parameter) {
  return {segment.at(parameter.offset), parameter.shape, segment.dtype};
}


void upload_first_values(Backend& backend, const Parameter& parameter, std::uint64_t seed) {
  const InitialValues initial(parameter, seed);
  const TensorView flat = parameter.value.reshaped({parameter.value.size()});
  const std::int64_t most = std::min(chunk, flat.size());
  std::vector<double> doubles(static_cast<std::size_t>(most));
  std::vector<float> floats(static_cast<std::size_t>(most));
  const bool narrow = size_of(flat.dtype) == 2;  // rounded by the backend, from f32
  void* staging = narrow ? backend.allocate(most * size_of(DType::f32)) : nullptr;
  for (std::int64_t first = 0; first < flat.size(); first += chunk) {
    const std::int64_t count = std::min(chunk, flat.size() - first);
    initial.write(first, std::span(doubles).first(static_cast<std::size_t>(count)));
    const TensorView part = flat.row_range(first, count);
    if (flat.dtype == DType::f64) {
      backend.upload(doubles.data(), part);
      continue;
    }
    std::transform(doubles.begin(), doubles.begin() + count, floats.begin(),
                   [](double value) { return static_cast<float>(value); });
    if (narrow) {
      const TensorView wide(staging, {count}, DType::f32);
      backend.upload(floats.data(), wide);
      backend.copy(wide, part);
    } else {
      backend.upload(floats.data(), part);
    }
  }
  if (staging != nullptr) {
    backend.synchronize();
    backend.release(staging);
  }
}

}  // namespace

Shape Parameter::global_shape() const {
  Shape whole = shape;
  whole[0] *= shards;
  return whole;
}

ParameterStore::~ParameterStore() {
  for (void* block : blocks_) backend_->release(block);
}

Parameter& ParameterStore::add(ParameterSpec spec) {
  expect(backend_ == nullptr, [&] { return fmt::format("parameter '{}' was added after seal()", spec.name); });
  expect(spec.shape.rank() > 0 && spec.shape.size() > 0,
         [&] { return fmt::format("parameter '{}' has no elements: {}", spec.name, spec.shape.text()); });
  expect(spec.shards >= 1 && spec.shard >= 0 && spec.shard < spec.shards,
         [&] { return fmt::format("parameter '{}' is slice {} of {}", spec.name, spec.shard, spec.shards); });
  expect(names_.insert(spec.name).second, [&] { return fmt::format("parameter '{}' was added twice", spec.name); });
  return list_.emplace_back(std::move(spec));
}

Table& ParameterStore::add_table(std::string name, std::int64_t size, std::vector<std::int32_t> values) {
  expect(backend_ == nullptr, [&] { return fmt::format("table '{}' was added after seal()", name); });
  expect(size > 0 && (values.empty() || std::ssize(values) == size),
         [&] { return fmt::format("table '{}' has {} values for {} places", name, values.size(), size); });
  expect(std::none_of(tables_.begin(), tables_.end(), [&](const auto& t) { return t.name == name; }),
         [&] { return fmt::format("table '{}' was added twice", name); });
  tables_.push_back({std::move(name), std::move(values), TensorView(nullptr, {size}, DType::i32)});
  return tables_.back();
}

void move_bias(Backend& backend, Table& bias, std::span<const double> tokens) {
  std::vector<std::int32_t>& values = bias.values;
  values.resize(static_cast<std::size_t>(bias.view.size()));
  expect(values.size() == tokens.size(),
         [&] { return fmt::format("table '{}' is moved by {} loads", bias.name, tokens.size()); });
  backend.download(bias.view, values.data());
  const double sum = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  for (std::size_t e = 0; e < values.size(); ++e) {
    const double taken = tokens[e] * static_cast<double>(values.size());
    values[e] += taken < sum ? 1 : taken > sum ? -1 : 0;
  }
  backend.upload(values.data(), bias.view);
}

void ParameterStore::seal(Backend& backend, DType value_type, std::uint64_t seed, bool initialise,
                          std::int64_t parts) {
  expect(backend_ == nullptr, "the parameter store was sealed twice");
  backend_ = &backend;
  alignment_ = std::lcm(member_alignment, part_alignment * parts);
  for (const Placement placement : {Placement::replicated, Placement::expert}) {
    for (const bool decay : {true, false}) {
      Segment segment{placement, decay, {}, {}, {}};
      std::int64_t elements = 0;
      for (auto& parameter : list_) {
        if (parameter.placement != placement || parameter.decay != decay) continue;
        parameter.segment = segments_.size();
        parameter.offset = elements;
        elements += aligned(parameter.shape.size());
        segment.members.push_back(&parameter);
      }
      if (elements == 0) continue;
      const auto allocate = [&](DType type) {
        blocks_.push_back(backend.allocate(elements * size_of(type)));
        TensorView flat(blocks_.back(), {elements}, type);
        backend.fill(flat, 0);
        return flat;
      };
      segment.value = allocate(value_type);
      segment.grad = allocate(wide_type(value_type));
      for (Parameter* parameter : segment.members) {
        parameter->value = part_of(segment.value, *parameter);
        parameter->grad = part_of(segment.grad, *parameter);
        if (initialise) upload_first_values(backend, *parameter, seed);
      }
      segments_.push_back(std::move(segment));
    }
  }
  for (auto& table : tables_) {
    blocks_.push_back(backend.allocate(table.view.bytes()));
    table.view.data = blocks_.back();
    expect(!initialise || !table.values.empty(), [&] { return fmt::format("table '{}' has no values", table.name); });
    if (!table.values.empty()) backend.upload(table.values.data(), table.view);
  }
}

void ParameterStore::zero_grad(Backend& backend) {
  for (auto& segment : segments_) backend.fill(segment.grad, 0);
}

Parameter& ParameterStore::find(const std::string& name) {
  const auto found = std::find_if(list_.begin(), list_.end(), [&](const auto& p) { return p.name == name; });
  expect(found != list_.end(), [&] { return fmt::format("there is no parameter named '{}'", name); });
  return *found;
}

std::int64_t ParameterStore::count_global() const {
  return count_global(Placement::replicated) + count_global(Placement::expert);
}

std::int64_t ParameterStore::count_global(Placement placement) const {
  std::int64_t total = 0;
  for (const auto& parameter : list_) {
    if (parameter.placement == placement) total += parameter.shape.size() * parameter.shards;
  }
  return total;
}

}  // namespace smlp
