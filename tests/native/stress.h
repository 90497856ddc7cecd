// What the stress tests share. They check with require(), from any thread.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>

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

// The calling thread, from here on.
inline void pin(int nth) {
#ifdef __linux__
  if (nth < 0) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int skip = nth % CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || skip-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    require(pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0, "pinned");
    return;
  }
#else
  (void)nth;
#endif
}

}  // namespace relaycore::stress
