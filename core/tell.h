// One sentence to people, on the standard error. Where it can't be written, its disk full or its terminal gone, nothing
// else happens: what is told of matters more than the telling.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace smlp {

template <class... Values>
void tell(fmt::format_string<Values...> sentence, Values&&... values) {
  const auto text = fmt::format("smlp: {}\n", fmt::format(sentence, std::forward<Values>(values)...));
  std::fputs(text.c_str(), stderr);
}

}  // namespace smlp
