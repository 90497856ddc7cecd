// How a thread of real-time priority stays below what Linux lets it have.
//
// That is 950 ms of each second of a processor (sched_rt_runtime_us, and what it reserves for whoever
// would starve). A thread that has had them is stopped for the rest of the second, all at once: beyond
// capacity a twentieth of all frames would be late by that. So it rests for moments before that, from its
// priority or altogether (scheduling.h). Time that it waits for its work, or for the processor, counts
// as rest, as it does there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace relaycore {

class Rests {
 public:
  // How long to rest now, ns; 0: not now. Called again and again by a thread that has used `cpu_ns()` of
  // processors so far while it had the priority, which is asked only when it may have to rest.
  template <class CpuTime>
  int64_t due(int64_t now_ns, CpuTime&& cpu_ns) noexcept {
    if (now_ns < due_ns_) return 0;
    int64_t idle = now_ns - cpu_ns();
    int64_t earned = kTimePerRest * (idle - std::exchange(idle_ns_, idle));
    due_ns_ = std::clamp(due_ns_ + earned, now_ns - kMostDebt, now_ns + kMostCredit);
    if (now_ns < due_ns_) return 0;
    return std::max(kLeastRest, (now_ns - due_ns_) / kTimePerRest);
  }

 private:
  // Of any second at least (1 s - 2 * kMostCredit - kMostDebt) / kTimePerRest are rest: credit is there twice
  // when it was earned right after a look, and seen when what was there had been used up. Of work that takes
  // longer than kMostDebt at a time, what is beyond that is not made up for.
  static constexpr int64_t kTimePerRest = 18;
  static constexpr int64_t kMostCredit = 20'000'000;
  static constexpr int64_t kMostDebt = 20'000'000;
  static constexpr int64_t kLeastRest = 50'000;

  int64_t due_ns_ = 0;
  int64_t idle_ns_ = 0;  // as it was looked at last
};

}  // namespace relaycore
