// Figures that anyone may read while one thread keeps them.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "relaycore/live_objects.h"
#include "relaycore/ref.h"

namespace relaycore {

class Counter {
 public:
  // relaxed throughout: each figure stands for itself and orders nothing.
  // The one thread that keeps it.
  void add(uint64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  // relaxed: the same.
  void set(uint64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
  // Several threads keep it. relaxed: the same, and no addition is lost.
  void add_shared(uint64_t n) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  // relaxed: the same.
  uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// How late things were: four steps per power of two of microseconds, to a second; the last bucket
// holds what was later. One thread adds, any thread reads.
class LatenessHistogram {
 public:
  static constexpr size_t kBuckets = 77;

  void add(int64_t late_ns) noexcept {
    counts_[bucket(late_ns < 0 ? 0 : static_cast<uint64_t>(late_ns) / 1000)].add(1);
  }
  std::vector<uint64_t> get() const {
    std::vector<uint64_t> all(kBuckets);
    for (size_t i = 0; i < kBuckets; ++i) all[i] = counts_[i].get();
    return all;
  }

  // The bucket of a lateness in microseconds.
  static constexpr size_t bucket(uint64_t us) noexcept {
    if (us < kSteps) return us;
    unsigned power = static_cast<unsigned>(std::bit_width(us)) - std::bit_width(kSteps);
    return std::min<uint64_t>(power * kSteps + (us >> power), kBuckets - 1);
  }
  // What is in the bucket is later than the bound of the one before, and earlier than this; 0 for
  // the last one, which has none.
  static constexpr uint64_t bound_us(size_t bucket) noexcept {
    if (bucket >= kBuckets - 1) return 0;
    if (bucket < kSteps) return bucket + 1;
    return (bucket % kSteps + kSteps + 1) << (bucket / kSteps - 1);
  }

 private:
  static constexpr unsigned kSteps = 4;

  Counter counts_[kBuckets];
};

struct alignas(64) ThreadCounters {
  Counter connections;       // now
  Counter listeners;         // now
  Counter rooms;             // now
  Counter ticks;             // blocks made
  Counter tick_late_ns_max;  // worst distance of a tick from its deadline so far
  Counter frames_sent;
  Counter frames_dropped;
  Counter frames_built;
  Counter bytes_sent;
  Counter bytes_received;
  Counter sends;    // sendmsg calls
  Counter packets;  // from sources
  Counter evicted;  // listeners reset as too slow
  Counter stalls;   // the watchdog's: times the thread did not come round
  LatenessHistogram tick_late;  // from a tick's deadline until its block is there
};

struct RoomCounters final : Shared, Counted<"RoomCounters"> {
  Counter blocks;
  Counter packets;
  Counter frames_sent;
  Counter frames_dropped;
  Counter bytes_sent;
  Counter listeners;  // now; add_shared with two's complement for minus
  static void destroy(RoomCounters* counters) noexcept { delete counters; }
};

}  // namespace relaycore
