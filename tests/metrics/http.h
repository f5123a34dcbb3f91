// One GET with a time limit, for tests.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>

namespace smlp::test {

struct Answer {
  long status = 0;  // 0: nobody answered
  std::string body;
};

inline std::size_t keep(char* data, std::size_t size, std::size_t count, void* body) {
  static_cast<std::string*>(body)->append(data, size * count);
  return size * count;
}

// Keeps its connection from one GET to the next.
class Getter {
 public:
  Answer get(const std::string& url) const {
    Answer answer;
    curl_easy_setopt(curl_.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl_.get(), CURLOPT_TIMEOUT, 5L);
    curl_easy_setopt(curl_.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_.get(), CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl_.get(), CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl_.get(), CURLOPT_WRITEDATA, &answer.body);
    if (curl_easy_perform(curl_.get()) == CURLE_OK) {
      curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &answer.status);
    }
    return answer;
  }

 private:
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_{curl_easy_init(), curl_easy_cleanup};
};

inline Answer get(const std::string& url) { return Getter().get(url); }

inline std::string escaped(const std::string& text) {
  char* out = curl_easy_escape(nullptr, text.c_str(), static_cast<int>(text.size()));
  std::string result = out;
  curl_free(out);
  return result;
}

}  // namespace smlp::test
