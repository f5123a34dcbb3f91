#include "data/text_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "data/output_lock.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

bool is_token_index(const std::string& path) {
  std::string start(7, '\0');
  std::error_code unknown;
  return fs::is_regular_file(path, unknown) && std::ifstream(path, std::ios::binary).read(start.data(), 7) && start == "MMIDIDX";
}

// Token files may lie beside the text they were made of; they are no text. The disk is asked for the index: the list of a
// folder may have tokens that were just written and not their index.
void leave_out_token_files(std::vector<TextFile>& files) {
  std::erase_if(files, [](const TextFile& file) {
    for (const char* ending : {".bin", ".idx", ".json"}) {
      if (!file.path.ends_with(ending)) continue;
      return is_token_index(file.path.substr(0, file.path.size() - std::strlen(ending)) + ".idx");
    }
    return false;
  });
}

void list_folder(const fs::path& folder, std::vector<TextFile>& files) {
  std::vector<TextFile> found;
  try {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      std::error_code leads_nowhere, unknown;  // a link, or one to itself
      if (is_unfinished_output(entry.path()) || !entry.is_regular_file(leads_nowhere)) continue;
      const auto bytes = entry.file_size(unknown);
      if (unknown == std::errc::no_such_file_or_directory) continue;  // removed since the folder was read
      if (unknown) throw fs::filesystem_error("the size is not known", entry.path(), unknown);
      found.push_back({entry.path().string(), static_cast<std::int64_t>(bytes)});
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(ExitCode::io_failed, fmt::format("the folder {} can't be read to its end: {}", folder.string(),
                                                 error.code().message()));
  }
  leave_out_token_files(found);
  std::sort(found.begin(), found.end(), [](const TextFile& a, const TextFile& b) { return a.path < b.path; });
  files.insert(files.end(), found.begin(), found.end());
}

std::string text_of_line(const std::string& line, const std::string& path, std::int64_t number) {
  const auto refuse = [&](const std::string& reason) {
    throw Error(ExitCode::bad_data,
                fmt::format("{} line {}: {}; each line must be a JSON object with the document as a "
                            "string under the key \"text\"",
                            path, number, reason));
  };
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    refuse(json_fault(error));
  }
  if (!object.is_object()) refuse("this is no object");
  const auto text = object.find("text");
  if (text == object.end() || !text->is_string()) refuse("there is no string \"text\"");
  return std::move(text->get_ref<std::string&>());
}

}  // namespace

std::vector<TextFile> find_text(const std::vector<std::string>& inputs,
                                const std::vector<std::string>& ignored) {
  std::vector<TextFile> files;
  for (const auto& input : inputs) {
    switch (kind_of_path(input)) {
      case PathKind::absent:
        throw Error(ExitCode::configuration, fmt::format("there is no file or folder {}", input));
      case PathKind::folder:
        list_folder(input, files);
        break;
      case PathKind::file:
        files.push_back({input, static_cast<std::int64_t>(fs::file_size(input))});
        break;
      case PathKind::other:
        throw Error(ExitCode::configuration, fmt::format("{} is neither a file nor a folder", input));
    }
  }
  std::erase_if(files, [&](const TextFile& file) {
    return std::any_of(ignored.begin(), ignored.end(), [&](const std::string& path) {
      std::error_code code;
      return fs::equivalent(file.path, path, code);
    });
  });
  if (files.empty())
    throw Error(ExitCode::configuration, fmt::format("there is no file in {}", fmt::join(inputs, ", ")));
  return files;
}

TextReader::TextReader(std::vector<TextFile> files, SafeCut safe_cut, std::int64_t piece_bytes)
    : files_(std::move(files)), safe_cut_(std::move(safe_cut)), piece_bytes_(piece_bytes) {}

bool TextReader::next(TextPiece& piece) {
  piece.first = !inside_;
  if (!inside_ && !open_next_document()) return false;
  auto limit = static_cast<std::size_t>(piece_bytes_);
  for (;;) {
    if (!complete_ && left() <= limit) read_more(static_cast<std::int64_t>(limit));
    const auto rest = std::string_view(buffer_).substr(start_);
    std::size_t length = rest.size();
    piece.last = complete_ && length <= limit;
    if (!piece.last) length = safe_cut_(rest.substr(0, limit + 1));
    if (length > 0) {
      piece.text.assign(rest.substr(0, length));
      start_ += length;
      inside_ = !piece.last;
      return true;
    }
    limit *= 2;
  }
}

// Leaves at least one byte of text in the buffer, or returns false.
bool TextReader::open_next_document() {
  for (;;) {
    buffer_.clear();
    start_ = 0;
    if (lines_) {
      if (open_next_line()) return inside_ = true;
      lines_ = false;
      continue;
    }
    if (split_ > 0 && next_file_ == 1 && bytes_read_ == split_ && stream_.is_open()) {
      split_ = -1;
    } else {
      if (next_file_ == files_.size()) return false;
      const auto& path = files_[next_file_++].path;
      stream_ = std::ifstream(path, std::ios::binary);
      if (!stream_) {
        throw Error(ExitCode::io_failed, fmt::format("opening {} failed: {}", path, std::strerror(errno)));
      }
      lines_ = path.ends_with(".jsonl");
      line_ = 0;
      if (lines_) continue;
    }
    complete_ = false;
    read_more(1);
    if (!buffer_.empty()) return inside_ = true;
  }
}

bool TextReader::open_next_line() {
  for (std::string line; std::getline(stream_, line);) {
    ++line_;
    bytes_read_ += std::ssize(line) + 1;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    buffer_ = text_of_line(line, files_[next_file_ - 1].path, line_);
    complete_ = true;
    if (!buffer_.empty()) return true;
  }
  if (stream_.bad())
    throw Error(ExitCode::io_failed, fmt::format("reading {} failed", files_[next_file_ - 1].path));
  return false;
}

void TextReader::read_more(std::int64_t count) {
  buffer_.erase(0, start_);
  start_ = 0;
  if (split_ > 0) count = std::min(count, split_ - bytes_read_);
  const auto before = buffer_.size();
  buffer_.resize(before + static_cast<std::size_t>(count));
  stream_.read(buffer_.data() + before, count);
  const auto got = stream_.gcount();
  buffer_.resize(before + static_cast<std::size_t>(got));
  bytes_read_ += got;
  complete_ =
      !stream_ || stream_.peek() == std::char_traits<char>::eof() || (split_ > 0 && bytes_read_ == split_);
  if (stream_.bad())  // to read or to peek
    throw Error(ExitCode::io_failed, fmt::format("reading {} failed", files_[next_file_ - 1].path));
}

}  // namespace smlp
