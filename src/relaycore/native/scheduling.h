// How a native thread is scheduled: with real-time priority where it may, but not for all of its time.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <ctime>

#include "clocks.h"
#include "rests.h"

namespace relaycore {

// Used by the thread that it is about.
class Scheduling {
 public:
  // SCHED_FIFO where that is wanted and allowed, since audio may not wait for whatever else the machine
  // does; else a short slice, with which the kernel lets a thread that wakes run sooner. The slice comes
  // first: who inherited a priority that it may not take again would lose it at the first rest.
  void begin(bool realtime) noexcept {
    prctl(PR_SET_TIMERSLACK, 1UL);
    take_short_slice();
    is_realtime_ = realtime && take_priority();
  }

  // For between two steps of work. While a thread rests it goes on, but as one like others: whoever waits
  // for its core may have it. True: it slept instead, so that it is later now.
  bool rest_if_due(int64_t now_ns) noexcept {
    if (now_ns < rest_ends_ns_) return false;
    end_rest();
    if (!is_realtime_) return false;
    int64_t ns = rests_.due(now_ns, [&] { return cpu_ns() - rested_cpu_ns_; });
    if (!ns) return false;
    // Both clocks are read here: work since `now_ns` would be taken for waiting.
    rest_began_ns_ = monotonic_ns();
    rest_began_cpu_ns_ = cpu_ns();
    if (now_ns >= sleeps_until_ns_ && take_short_slice()) {
      rest_ends_ns_ = rest_began_ns_ + ns;
      return false;
    }
    timespec moment{0, ns};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &moment, nullptr);
    return true;
  }

  bool rests() const noexcept { return rest_ends_ns_ != 0; }

  // Has to be called before it waits for work: it would be woken as late as any other thread.
  void end_rest() noexcept {
    if (!rests()) return;
    int64_t used_ns = cpu_ns() - rest_began_cpu_ns_;
    int64_t now_ns = monotonic_ns();
    // Where others want the core, or a quota of its control group is used up, it may have waited for longer
    // than counts as rest. For a hundred times as long it sleeps at its rests, so that such waits take
    // some hundredths of all time.
    int64_t too_long_ns = now_ns - rest_began_ns_ - used_ns - kMostWait;
    if (too_long_ns > 0) sleeps_until_ns_ = now_ns + std::min(kTimePerWait * too_long_ns, kMostSleeping);
    rested_cpu_ns_ += used_ns;
    rest_ends_ns_ = 0;
    is_realtime_ = take_priority();
  }

 private:
  static constexpr int kRealtimePriority = 10;
  static constexpr int64_t kMostWait = 1'000'000;
  static constexpr int64_t kTimePerWait = 100;
  static constexpr int64_t kMostSleeping = 10'000'000'000;

  static int64_t cpu_ns() noexcept { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

  static bool take_priority() noexcept {
    sched_param priority{};
    priority.sched_priority = kRealtimePriority;
    return pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0;
  }

  static bool take_short_slice() noexcept {
    // struct sched_attr of sched_setattr(2), which the C library does not declare everywhere.
    struct {
      uint32_t size = 48, policy = SCHED_OTHER;
      uint64_t flags = 0;
      int32_t nice = getpriority(PRIO_PROCESS, 0);  // what it has: of this thread, not of all
      uint32_t priority = 0;
      uint64_t runtime = 100'000, deadline = 0, period = 0;  // ns; the shortest slice there is
    } attributes;
    return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
  }

  bool is_realtime_ = false;
  Rests rests_;
  int64_t rest_began_ns_ = 0;
  int64_t rest_began_cpu_ns_ = 0;
  int64_t rest_ends_ns_ = 0;     // 0: it does not rest
  int64_t rested_cpu_ns_ = 0;    // what it has used while it rested
  int64_t sleeps_until_ns_ = 0;  // until when it sleeps instead
};

}  // namespace relaycore
