// A lock-free ring for one producer thread and one consumer thread.
//
// THE CONTRACT: at any time at most one thread calls the producer's functions (writable, reserve,
// commit) and at most one thread the consumer's (readable, peek, release). Handing either role to
// another thread needs a synchronisation of its own. Nothing here checks that, and nothing here
// blocks, allocates (after init) or fails.
//
// Both ends work in two phases: reserve() gives the free places, the caller fills them in place,
// commit() publishes them; peek() gives the oldest elements, release() frees their places. What
// reserve() and peek() give belongs to the caller only until the matching commit() or release().
//
// The indices run freely over 2^64 and never wrap to the capacity; only `index & mask` is a place.
// So `write - read` is the fill in modular arithmetic at every moment, full and empty are distinct
// without a spare slot, and crossing 2^32 or 2^64 is no special case (tests start right before).
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>

namespace relaycore {

#if defined(__APPLE__) && defined(__aarch64__)
inline constexpr std::size_t kCacheLine = 128;
#else
inline constexpr std::size_t kCacheLine = 64;
#endif

template <class T>
class SpscRing {
  static_assert(std::is_trivially_copyable_v<T>, "elements are copied as bytes");
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

 public:
  // Up to two contiguous pieces, because a run of places may go over the end of the memory.
  struct Span {
    T* first = nullptr;
    std::size_t first_n = 0;
    T* second = nullptr;
    std::size_t second_n = 0;
    std::size_t size() const noexcept { return first_n + second_n; }
  };

  SpscRing() = default;
  ~SpscRing() { ::operator delete(data_, std::align_val_t{kCacheLine}); }
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Takes the memory, once, before any other thread knows the ring. The capacity is rounded up to
  // a power of two. `first_index` is where both indices begin: for tests of the wrap.
  bool init(std::size_t capacity, std::uint64_t first_index = 0) noexcept {
    if (data_ != nullptr || capacity == 0 ||
        capacity > std::numeric_limits<std::size_t>::max() / 4 / sizeof(T)) {
      return false;
    }
    const std::size_t places = std::bit_ceil(capacity);
    void* memory =
        ::operator new(places * sizeof(T), std::align_val_t{kCacheLine}, std::nothrow);
    if (memory == nullptr) return false;
    data_ = static_cast<T*>(memory);
    for (std::size_t i = 0; i < places; ++i) ::new (data_ + i) T{};  // touches every page now
    mask_ = places - 1;
    // relaxed: no other thread can see the ring yet; whatever hands it over synchronises.
    writer_.index.store(first_index, std::memory_order_relaxed);
    reader_.index.store(first_index, std::memory_order_relaxed);
    writer_.peer = first_index;
    reader_.peer = first_index;
    return true;
  }

  std::size_t capacity() const noexcept { return data_ == nullptr ? 0 : mask_ + 1; }

  // ---- producer ----

  // How many elements may be reserved. The consumer's index is read anew only when the cached copy
  // does not already allow `wanted`: in steady state the two threads do not share a cache line.
  std::size_t writable(
      std::size_t wanted = std::numeric_limits<std::size_t>::max()) noexcept {
    // relaxed: this thread is the only one that writes this index.
    const std::uint64_t write = writer_.index.load(std::memory_order_relaxed);
    std::size_t free = capacity() - static_cast<std::size_t>(write - writer_.peer);
    if (free < wanted) {
      // acquire: pairs with the release in release(). The consumer's reads of those places
      // happen before its store, so they happen before our writes over them.
      writer_.peer = reader_.index.load(std::memory_order_acquire);
      free = capacity() - static_cast<std::size_t>(write - writer_.peer);
    }
    return free;
  }

  // The next `n` free places, or an empty span when there are fewer. Publishes nothing.
  Span reserve(std::size_t n) noexcept {
    if (writable(n) < n) return {};
    // relaxed: our own index.
    return span(writer_.index.load(std::memory_order_relaxed), n);
  }

  // Publishes the first `n` of the places reserved last. n must not exceed what was reserved.
  void commit(std::size_t n) noexcept {
    // relaxed: our own index.
    const std::uint64_t write = writer_.index.load(std::memory_order_relaxed);
    // release: pairs with the acquire in readable(). What was written into the places happens
    // before the consumer sees the index that covers them.
    writer_.index.store(write + n, std::memory_order_release);
  }

  // ---- consumer ----

  // How many elements may be peeked. The producer's index is read anew only when needed.
  std::size_t readable(
      std::size_t wanted = std::numeric_limits<std::size_t>::max()) noexcept {
    // relaxed: this thread is the only one that writes this index.
    const std::uint64_t read = reader_.index.load(std::memory_order_relaxed);
    std::size_t filled = static_cast<std::size_t>(reader_.peer - read);
    if (filled < wanted) {
      // acquire: pairs with the release in commit(): the elements are there before the index.
      reader_.peer = writer_.index.load(std::memory_order_acquire);
      filled = static_cast<std::size_t>(reader_.peer - read);
    }
    return filled;
  }

  // The oldest `n` elements, or an empty span when there are fewer. Frees nothing.
  Span peek(std::size_t n) noexcept {
    if (readable(n) < n) return {};
    // relaxed: our own index.
    return span(reader_.index.load(std::memory_order_relaxed), n);
  }

  // Frees the oldest `n` elements. n must not exceed readable().
  void release(std::size_t n) noexcept {
    // relaxed: our own index.
    const std::uint64_t read = reader_.index.load(std::memory_order_relaxed);
    // release: pairs with the acquire in writable(). Our reads of the places happen before the
    // producer may write over them.
    reader_.index.store(read + n, std::memory_order_release);
  }

 private:
  // What one thread writes: its index, and its copy of the other thread's index. A line each, so
  // that neither thread's stores take the other's line away.
  struct alignas(kCacheLine) Side {
    std::atomic<std::uint64_t> index{0};
    std::uint64_t peer = 0;
  };
  static_assert(sizeof(Side) == kCacheLine && alignof(Side) == kCacheLine);

  Span span(std::uint64_t index, std::size_t n) const noexcept {
    const std::size_t at = static_cast<std::size_t>(index) & mask_;
    const std::size_t to_end = mask_ + 1 - at;
    if (n <= to_end) return {data_ + at, n, nullptr, 0};
    return {data_ + at, to_end, data_, n - to_end};
  }

  Side writer_;
  Side reader_;
  // Written once by init(), then only read: on a line that nobody writes.
  alignas(kCacheLine) T* data_ = nullptr;
  std::size_t mask_ = 0;
};

static_assert(sizeof(SpscRing<float>) == 3 * kCacheLine, "writer, reader and constants apart");

}  // namespace relaycore
