// What the stress tests share. They check with require(), from any thread.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

namespace relaycore::stress {

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::abort();
}

// Where two sides run: -1, wherever the scheduler likes; else on the nth CPU this process may use.
struct Placement {
  int producer;
  int consumer;
};
inline constexpr Placement kPlacements[] = {{-1, -1}, {0, 0}, {0, 1}};

#ifdef __linux__
// What this process may use: as it was before the first thread was pinned, whose own set, which those
// it starts inherit, has one CPU since then.
inline const cpu_set_t& allowed_cpus() {
  static const cpu_set_t allowed = [] {
    cpu_set_t set;
    require(sched_getaffinity(0, sizeof set, &set) == 0, "the CPUs that are allowed");
    return set;
  }();
  return allowed;
}
#endif

// The calling thread, from here on.
inline void pin(int nth) {
#ifdef __linux__
  cpu_set_t wanted = allowed_cpus();
  if (nth >= 0) {
    int skip = nth % CPU_COUNT(&wanted), cpu = 0;
    while (!CPU_ISSET(cpu, &wanted) || skip-- > 0) ++cpu;
    CPU_ZERO(&wanted);
    CPU_SET(cpu, &wanted);
  }
  require(pthread_setaffinity_np(pthread_self(), sizeof wanted, &wanted) == 0, "pinned");
#else
  (void)nth;
#endif
}

// Where two CPUs are allowed, the two sides of the last placement have one each.
inline void require_two_cpus() {
#ifdef __linux__
  if (CPU_COUNT(&allowed_cpus()) < 2) return;
  pin(0);
  int ours = sched_getcpu(), theirs = ours;
  std::thread([&theirs] {
    pin(1);
    theirs = sched_getcpu();
  }).join();
  require(ours != theirs, "a CPU for each side");
#endif
}

}  // namespace relaycore::stress
