#include "slurm/host_list.h"

#include <gmock/gmock.h>

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::Optional;

TEST(HostList, IsExpandedInItsOrder) {
  EXPECT_THAT(expand_hosts("n[1-3,07-09],gpu5"),
              Optional(ElementsAre("n1", "n2", "n3", "n07", "n08", "n09", "gpu5")));
  EXPECT_THAT(expand_hosts("n7"), Optional(ElementsAre("n7")));
  EXPECT_THAT(expand_hosts("b,a.site.org,c-d_e"), Optional(ElementsAre("b", "a.site.org", "c-d_e")));
  EXPECT_THAT(expand_hosts("n[098-101]"), Optional(ElementsAre("n098", "n099", "n100", "n101")));
  EXPECT_THAT(expand_hosts("r[1-2]n[3,5]-ib"), Optional(ElementsAre("r1n3-ib", "r1n5-ib", "r2n3-ib", "r2n5-ib")));
  EXPECT_THAT(expand_hosts(""), Optional(ElementsAre()));
}

TEST(HostList, WhatIsNoneIsRefused) {
  for (const char* wrong : {"n[1-3", "n]", "n[3-1]", "n[]", "n[a-b]", "n[1-]", "n[1,]", "n 1", "n1,", ",n1", "n1,,n2", "n[1-3]]",
                            "-n1", "n;rm", "n$(id)", "n\n", "n[1-99999999999999999999]", "n[0-1000000]",
                            "n[1-1000]m[1-1001]"}) {
    EXPECT_EQ(expand_hosts(wrong), std::nullopt) << wrong;
  }
  EXPECT_EQ(expand_hosts("n[1-1000000]")->size(), 1'000'000u);
}

TEST(HostList, IsCompressedToWhatReadsBackTheSame) {
  const auto shown = [](const std::vector<std::string>& names) {
    const auto list = compress_hosts(names);
    EXPECT_EQ(expand_hosts(list), names) << list;
    return list;
  };
  EXPECT_EQ(shown({"n1", "n2", "n3", "n07", "n08", "n09", "gpu5"}), "n[1-3,07-09],gpu5");
  EXPECT_EQ(shown({"n1"}), "n1");
  EXPECT_EQ(shown({}), "");
  EXPECT_EQ(shown({"n8", "n9", "n10"}), "n[8-10]");
  EXPECT_EQ(shown({"n08", "n09", "n10"}), "n[08-10]");
  EXPECT_EQ(shown({"n9", "n010"}), "n[9,010]");
  EXPECT_EQ(shown({"n3", "n1", "n2", "n2"}), "n[3,1-2,2]");
  EXPECT_EQ(shown({"login", "n1", "login"}), "login,n1,login");
  EXPECT_EQ(shown({"r1n3-ib", "r1n4-ib", "r2n3-ib"}), "r1n[3-4]-ib,r2n3-ib");
  EXPECT_EQ(shown({"n123456789012345678901", "n123456789012345678902"}).find(' '), std::string::npos);
}

}  // namespace
}  // namespace smlp
