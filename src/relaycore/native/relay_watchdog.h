// Looks whether the relay's threads come round when they are due, and reports one that did not.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "relaycore/status.h"

namespace relaycore {

struct RelayShared;

// A thread of its own, because neither the watched thread nor a busy Python could tell. It only
// reads an atomic of each thread and waits for nobody.
class RelayWatchdog {
 public:
  explicit RelayWatchdog(RelayShared& shared) noexcept : shared_(shared) {}
  ~RelayWatchdog() { stop(); }

  Status start();  // system_error: errno tells. Nothing is watched with watchdog_ns 0.
  void stop();

 private:
  struct Watched {
    int64_t due_ns = 0;  // of the stall that was reported and is not over; 0: none
  };

  void run() noexcept;
  void look(unsigned thread, Watched& watched) noexcept;
  void report(unsigned thread, int64_t late_ns, bool over) noexcept;

  RelayShared& shared_;
  std::vector<Watched> watched_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace relaycore
