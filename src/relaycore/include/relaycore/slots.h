// Memory for objects of one kind that are many and stay long. malloc puts so much beside each one
// that is aligned to a cache line, and between them, that it comes to a third of a connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

namespace relaycore {

// Places of `Size` bytes, a multiple of `Alignment`. Those given back are taken again first; memory
// goes back to nobody. Any thread, one at a time: the others wait, so not for relay threads.
template <size_t Size, size_t Alignment>
class Slots {
 public:
  // Throws std::bad_alloc.
  void* take() {
    std::lock_guard lock(mutex_);
    if (free_) return std::exchange(free_, free_->next);
    if (fresh_ == end_) {
      fresh_ = static_cast<uint8_t*>(::operator new(kAtOnce * Size, std::align_val_t{Alignment}));
      end_ = fresh_ + kAtOnce * Size;
    }
    return std::exchange(fresh_, fresh_ + Size);
  }

  void give(void* slot) noexcept {
    std::lock_guard lock(mutex_);
    free_ = new (slot) Free{free_};
  }

 private:
  static constexpr size_t kAtOnce = 64;
  struct Free {
    Free* next;
  };
  static_assert(Size % Alignment == 0 && Size >= sizeof(Free) && Alignment >= alignof(Free));

  std::mutex mutex_;
  Free* free_ = nullptr;
  uint8_t* fresh_ = nullptr;  // never taken until now: untouched memory costs nothing
  uint8_t* end_ = nullptr;
};

}  // namespace relaycore
