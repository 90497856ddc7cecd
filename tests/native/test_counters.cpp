// Figures that one thread keeps and others read.
#include <numeric>

#include "check.h"
#include "relaycore/counters.h"

using namespace relaycore;

namespace {

using Late = LatenessHistogram;

TEST(every_lateness_is_below_the_bound_of_its_bucket_and_not_below_the_one_before) {
  CHECK_EQ(Late::bucket(0), 0u);
  for (uint64_t us = 1; us < (uint64_t{1} << 20); ++us) {
    const size_t bucket = Late::bucket(us);
    CHECK(bucket < Late::kBuckets - 1);
    CHECK(us < Late::bound_us(bucket));
    CHECK(us >= Late::bound_us(bucket - 1));
  }
}

TEST(the_last_bucket_has_no_bound) {
  CHECK_EQ(Late::bound_us(Late::kBuckets - 2), uint64_t{1} << 20);
  CHECK_EQ(Late::bound_us(Late::kBuckets - 1), 0u);
  for (uint64_t us : {uint64_t{1} << 20, uint64_t{1} << 21, uint64_t{1} << 63, ~uint64_t{0}})
    CHECK_EQ(Late::bucket(us), Late::kBuckets - 1);
}

TEST(what_is_added_is_counted_once) {
  Late late;
  for (int64_t ns : {int64_t{-5}, int64_t{0}, int64_t{999}, int64_t{1000}, int64_t{7'999'999},
                     INT64_MAX})
    late.add(ns);
  const std::vector<uint64_t> counts = late.get();
  CHECK_EQ(counts.size(), Late::kBuckets);
  CHECK_EQ(counts[0], 3u);
  CHECK_EQ(counts[1], 1u);
  CHECK_EQ(counts[Late::bucket(7999)], 1u);
  CHECK_EQ(counts[Late::kBuckets - 1], 1u);
  CHECK_EQ(std::accumulate(counts.begin(), counts.end(), uint64_t{0}), 6u);
}

}  // namespace
