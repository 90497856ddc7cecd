// A thread of real-time priority that is busy throughout: it rests as much as Linux wants.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.h"
#include "rests.h"

using namespace relaycore;

namespace {

constexpr int64_t kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;

struct Look {
  int64_t at_ns, cpu_ns;
};

// A thread whose steps take `step_ns` each, from a while of idling on. A rest takes longer than asked by
// `over_ns`, of which some microseconds are its own.
std::vector<Look> busy_thread(int64_t step_ns, int64_t over_ns, int64_t idle_before_ns) {
  Rests rests;
  int64_t now = 7 * kSecond, cpu = kSecond;  // it came late to a machine that has run for a while
  std::vector<Look> looks;
  for (int64_t end = now + idle_before_ns; now < end; now += kMs, cpu += kUs)
    rests.due(now, [&] { return cpu; });
  for (int64_t end = now + 4 * kSecond; now < end;) {
    looks.push_back({now, cpu});
    now += step_ns;
    cpu += step_ns;
    if (int64_t ns = rests.due(now, [&] { return cpu; })) {
      looks.push_back({now, cpu});
      now += ns + over_ns;
      cpu += 5 * kUs;
    }
  }
  return looks;
}

// The most that it worked in any second.
int64_t most_in_a_second(const std::vector<Look>& looks) {
  int64_t most = 0;
  size_t first = 0;
  for (const Look& look : looks) {
    while (looks[first].at_ns < look.at_ns - kSecond) ++first;
    // The second may begin in the middle of what lies before the first look in it.
    int64_t before = first ? looks[first].at_ns - (look.at_ns - kSecond) : 0;
    most = std::max(most, look.cpu_ns - looks[first].cpu_ns + before);
  }
  return most;
}

}  // namespace

TEST(of_no_second_does_it_work_more_than_linux_lets_it) {
  for (int64_t step : {20 * kUs, 100 * kUs, 300 * kUs, kMs, 3 * kMs, 10 * kMs})
    for (int64_t over : {6 * kUs, 50 * kUs, kMs})
      for (int64_t idle : {int64_t{0}, 30 * kMs, 500 * kMs, 2 * kSecond})
        CHECK(most_in_a_second(busy_thread(step, over, idle)) <= 950 * kMs);
}

TEST(it_works_nearly_as_much_as_it_may) {
  for (int64_t step : {20 * kUs, 300 * kUs, 3 * kMs}) {
    std::vector<Look> looks = busy_thread(step, 50 * kUs, 0);
    int64_t worked = looks.back().cpu_ns - looks.front().cpu_ns;
    CHECK(worked >= (looks.back().at_ns - looks.front().at_ns) * 93 / 100);
  }
}

TEST(who_waits_for_work_does_not_rest) {
  Rests rests;
  int64_t now = 7 * kSecond, cpu = kSecond;
  for (int i = 0; i < 1000; ++i, now += 20 * kMs, cpu += 18 * kMs)
    CHECK(rests.due(now, [&] { return cpu; }) == 0);
}
