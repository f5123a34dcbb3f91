// Copies of shards where memory is short.
#include "worker/shard_exchange.h"

#include <gtest/gtest.h>

#include <new>

namespace smlp {
namespace {

#ifndef SMLP_SANITIZED  // which ends the process where it gets no memory of its own
// It was taken chunk by chunk by the thread that reads the files, where its lack ended the process without a word.
TEST(ShardExchange, TakesItsMemoryAtTheStartWhereTheLackOfItIsTold) {
  const auto backend = make_cpu_backend();
  constexpr std::int64_t too_much = std::int64_t{1} << 56;
  EXPECT_THROW(ShardExchange(make_solo(*backend), {.to = 0, .from = {}}, "nowhere", too_much), std::bad_alloc);
  EXPECT_THROW(ShardExchange(make_solo(*backend), {.to = {}, .from = {0}}, "nowhere", too_much), std::bad_alloc);
  EXPECT_NO_THROW(ShardExchange(make_solo(*backend), {}, "nowhere", too_much)) << "a lone rank needs none";
}
#endif

}  // namespace
}  // namespace smlp
