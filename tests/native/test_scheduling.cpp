// How a thread of real-time priority rests, on the machine that this runs on. Where no such priority is to
// be had, there is nothing to rest from.
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <thread>
#include <utility>

#include "check.h"
#include "scheduling.h"

using namespace relaycore;

namespace {

constexpr int64_t kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;

bool take_realtime() {
  sched_param priority{};
  priority.sched_priority = 10;  // what Scheduling asks for
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0;
}

bool try_realtime() {
  bool may = false;
  std::thread([&] { may = take_realtime(); }).join();
  return may;
}

bool may_be_realtime() {
  static const bool may = try_realtime();
  return may;
}

// Used up by a step of work.
int64_t work(int64_t ns) {
  int64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID), used = 0;
  while (used < ns) used = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
  return used;
}

// For what happens within a second where there is a priority: so long it may take on a busy machine.
int64_t patience() { return may_be_realtime() ? 15 * kSecond : kSecond / 10; }

bool is_fifo() { return sched_getscheduler(0) == SCHED_FIFO; }

// Works, with a look between steps, until `done(whether it slept)` or for so long. Returns whether `done`.
template <class Done>
bool work_until(Scheduling& scheduling, int64_t at_most_ns, Done&& done) {
  for (int64_t end = monotonic_ns() + at_most_ns; monotonic_ns() < end; work(100 * kUs))
    if (done(scheduling.rest_if_due(monotonic_ns()))) return true;
  return false;
}

// Of the calling thread, and of the process.
void give_permission_away() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2];
  syscall(SYS_capget, &header, sets);
  sets[0].effective &= ~(1u << CAP_SYS_NICE);
  syscall(SYS_capset, &header, sets);
  rlimit none{0, 0};
  setrlimit(RLIMIT_RTPRIO, &none);
}

}  // namespace

TEST(a_busy_thread_is_for_moments_one_like_others_and_goes_on) {
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(true);
    CHECK_EQ(is_fifo(), may_be_realtime());
    int64_t begun = monotonic_ns(), last = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t with_priority = 0, without = 0;
    bool had_it = is_fifo();
    bool rested = work_until(scheduling, patience(), [&](bool) {
      CHECK_EQ(scheduling.rests(), may_be_realtime() && !is_fifo());
      int64_t now = clock_ns(CLOCK_THREAD_CPUTIME_ID);
      (std::exchange(had_it, is_fifo()) ? with_priority : without) += now - std::exchange(last, now);
      return had_it && without > 30 * kMs;
    });
    CHECK_EQ(rested, may_be_realtime());
    // At first there are 20 ms of credit; how much rest there has to be is in test_rests.cpp.
    CHECK(with_priority <= 20 * kMs + (monotonic_ns() - begun - 20 * kMs) * 95 / 100);
    CHECK(!rested || with_priority >= 10 * without);
  }).join();
}

TEST(before_it_waits_it_has_its_priority_again) {
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(true);
    CHECK_EQ(work_until(scheduling, patience(), [&](bool) { return scheduling.rests(); }),
             may_be_realtime());
    scheduling.end_rest();
    CHECK(!scheduling.rests());
    CHECK_EQ(is_fifo(), may_be_realtime());
  }).join();
}

TEST(who_had_to_wait_at_a_rest_sleeps_instead_for_a_while) {
  if (!may_be_realtime()) return;
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(true);
    auto rests_or_sleeps = [&] {
      bool slept = false;
      CHECK(work_until(scheduling, patience(),
                       [&](bool sleeps) { return (slept = sleeps) || scheduling.rests(); }));
      return slept;
    };
    while (rests_or_sleeps()) {}
    timespec as_if_others_had_the_core{0, 5 * kMs};
    nanosleep(&as_if_others_had_the_core, nullptr);
    scheduling.end_rest();
    int64_t waited = monotonic_ns();
    CHECK(rests_or_sleeps());
    while (rests_or_sleeps()) CHECK(is_fifo());
    CHECK(monotonic_ns() - waited >= 100 * kMs);
  }).join();
}

TEST(what_it_did_between_the_look_at_the_clock_and_the_rest_is_no_waiting) {
  if (!may_be_realtime()) return;
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(true);
    int rests = 0;  // one after the other, without sleep
    for (int64_t end = monotonic_ns() + patience(); rests < 2 && monotonic_ns() < end;) {
      int64_t looked = monotonic_ns();
      work(5 * kMs);
      if (scheduling.rest_if_due(looked)) rests = 0;
      if (!scheduling.rests()) continue;
      scheduling.end_rest();
      ++rests;
    }
    CHECK_EQ(rests, 2);
  }).join();
}

TEST(without_a_wish_for_it_it_has_none_and_does_not_rest) {
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(false);
    CHECK(!work_until(scheduling, kSecond / 5,
                      [&](bool slept) { return slept || scheduling.rests() || is_fifo(); }));
  }).join();
}

// The last one: the process does not get back what it gives away.
TEST(who_may_not_have_it_back_goes_on_without) {
  std::thread([] {
    Scheduling scheduling;
    scheduling.begin(true);
    bool rested = work_until(scheduling, patience(), [&](bool) { return scheduling.rests(); });
    CHECK_EQ(rested, may_be_realtime());
    // Nor has who inherits it, and may not take it, any from the start.
    take_realtime();
    give_permission_away();
    CHECK_EQ(is_fifo(), may_be_realtime());
    Scheduling of_heir;
    of_heir.begin(true);
    CHECK(!is_fifo());
    scheduling.end_rest();
    CHECK(!is_fifo());
    CHECK(!work_until(scheduling, kSecond / 5,
                      [&](bool slept) { return slept || scheduling.rests() || is_fifo(); }));
  }).join();
}
