// A door that is shut once: who is inside by then is waited for, who comes later is turned away.
#pragma once

#include <atomic>
#include <cstdint>

namespace relaycore {

// Any thread may call any of it. enter() and leave() never wait.
class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // False: it is shut. True: shut() does not return before leave().
  bool enter() noexcept {
    // acquire: who is turned away sees what the one that shut it did before. All accesses are to
    // one atomic, so either this addition comes before the bit is set, and shut() counts it, or
    // the bit is seen here.
    if (!(state_.fetch_add(1, std::memory_order_acquire) & kShut)) return true;
    leave();
    return false;
  }

  void leave() noexcept {
    // release: pairs with the acquire in shut(): what was done inside comes before what follows it.
    if (state_.fetch_sub(1, std::memory_order_release) & kShut) state_.notify_all();
  }

  // Waits until nobody is inside. True for the one call that shut it.
  bool shut() noexcept {
    // release: pairs with the acquire in enter().
    bool first = !(state_.fetch_or(kShut, std::memory_order_release) & kShut);
    // acquire: pairs with the release in leave(). Additions and subtractions continue each other's
    // release sequence, so the last one brings what all of them did.
    while (uint32_t inside = state_.load(std::memory_order_acquire) & ~kShut)
      state_.wait(inside | kShut, std::memory_order_acquire);
    return first;
  }

  // acquire: pairs with the release in shut().
  bool is_shut() const noexcept { return state_.load(std::memory_order_acquire) & kShut; }

 private:
  static constexpr uint32_t kShut = 1u << 31;
  std::atomic<uint32_t> state_{0};  // how many are inside, and whether it is shut
};

// Inside a gate for as long as it lives, if it was let in.
class GatePass {
 public:
  explicit GatePass(Gate& gate) noexcept : gate_(gate.enter() ? &gate : nullptr) {}
  ~GatePass() {
    if (gate_) gate_->leave();
  }
  GatePass(const GatePass&) = delete;
  GatePass& operator=(const GatePass&) = delete;
  explicit operator bool() const noexcept { return gate_ != nullptr; }

 private:
  Gate* gate_;
};

}  // namespace relaycore
