// Reference counting for the immutable objects that travel between threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace relaycore {

// Base of an object shared between threads; deleted by whoever drops the last reference.
class Shared {
 public:
  Shared() = default;
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  // relaxed: a new reference is only ever made from one that is held already.
  void retain() const noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }

  // release: what this holder did to the object comes before its end or its reuse;
  // acquire: whoever ends it sees what every other holder did.
  bool drop() const noexcept { return refs_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

  // True for the only holder; acquire for the same reason as in drop(), since it may write then.
  bool unique() const noexcept { return refs_.load(std::memory_order_acquire) == 1; }

 private:
  mutable std::atomic<uint32_t> refs_{1};
};

// Owner of one reference to a T, which has retain(), drop() and a static destroy(T*).
template <class T>
class Ref {
 public:
  Ref() noexcept = default;
  Ref(const Ref& other) noexcept : object_(other.object_) {
    if (object_) object_->retain();
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ && object_->drop()) T::destroy(object_);
  }

  // Takes over the reference that the object was born with.
  static Ref adopt(T* object) noexcept {
    Ref ref;
    ref.object_ = object;
    return ref;
  }

  T* get() const noexcept { return object_; }
  T* operator->() const noexcept { return object_; }
  T& operator*() const noexcept { return *object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

}  // namespace relaycore
