// Finds two threads in the same role. Not a lock: nobody waits.
#pragma once

#include <atomic>

namespace relaycore {

// One thread at a time may be in the role. Leaving and entering synchronise, so that a role may
// also pass from thread to thread as long as the calls do not overlap.
class Role {
 public:
  // acquire: pairs with the release in leave(); what the last holder did is seen by this one.
  bool enter() noexcept { return !taken_.exchange(true, std::memory_order_acquire); }
  // release: pairs with the acquire in enter().
  void leave() noexcept { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

}  // namespace relaycore
