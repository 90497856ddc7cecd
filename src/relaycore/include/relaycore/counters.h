// Figures that anyone may read while one thread keeps them.
#pragma once

#include <atomic>
#include <cstdint>

#include "relaycore/ref.h"

namespace relaycore {

// relaxed throughout: each figure stands for itself and orders nothing.
class Counter {
 public:
  // The one thread that keeps it.
  void add(uint64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void set(uint64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
  // Several threads keep it.
  void add_shared(uint64_t n) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
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
};

struct RoomCounters final : Shared {
  Counter blocks;
  Counter packets;
  Counter frames_sent;
  Counter frames_dropped;
  Counter bytes_sent;
  Counter listeners;  // now; add_shared with two's complement for minus
  static void destroy(RoomCounters* counters) noexcept { delete counters; }
};

}  // namespace relaycore
