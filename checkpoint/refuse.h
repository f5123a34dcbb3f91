// The ways in which this room says no, each with a sentence.
#pragma once

#include <string>

#include "core/error.h"

namespace smlp {

// What lies on the disk does not hold.
[[noreturn]] inline void refuse_data(const std::string& sentence) { throw Error(ExitCode::bad_data, sentence); }

// It holds, and is of a format that came after this program's: nothing is wrong with it.
class NewerFormat : public Error {
 public:
  NewerFormat(int version, const std::string& sentence) : Error(ExitCode::bad_data, sentence), version_(version) {}
  int version() const noexcept { return version_; }

 private:
  int version_;
};

// What is to be saved, or published, contradicts itself.
[[noreturn]] inline void refuse_save(const std::string& sentence) { throw Error(ExitCode::fault, sentence); }

}  // namespace smlp
