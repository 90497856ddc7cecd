// Debug builds (-DRELAYCORE_COUNT_OBJECTS) count the objects of each kind that were made and freed,
// so that a test can tell that nothing is left. In every other build none of this costs anything.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

namespace relaycore {

struct LiveObjects {
  const char* kind;
  uint64_t made;
  uint64_t freed;
  uint64_t alive() const noexcept { return made - freed; }
};

// The name of a kind, as an argument of a template.
template <size_t N>
struct KindName {
  consteval KindName(const char (&name)[N]) noexcept { std::copy_n(name, N, text); }
  char text[N];
};

#ifdef RELAYCORE_COUNT_OBJECTS

inline constexpr bool kCountsObjects = true;

// One for each kind, made before main().
class ObjectKind {
 public:
  explicit ObjectKind(const char* name) noexcept : name_(name), next_(first_) { first_ = this; }

  // relaxed: whoever frees the object learned of it from whoever made it.
  void count_made() noexcept { made_.fetch_add(1, std::memory_order_relaxed); }
  // release: pairs with the acquire in figures().
  void count_freed() noexcept { freed_.fetch_add(1, std::memory_order_release); }

  LiveObjects figures() const noexcept {
    // acquire, and first: everything freed by then is seen as made, so there are never fewer than 0.
    uint64_t freed = freed_.load(std::memory_order_acquire);
    // relaxed: ordered behind the load above.
    return {name_, made_.load(std::memory_order_relaxed), freed};
  }

  static const ObjectKind* first() noexcept { return first_; }
  const ObjectKind* next() const noexcept { return next_; }

 private:
  static inline ObjectKind* first_ = nullptr;
  const char* name_;
  ObjectKind* next_;
  std::atomic<uint64_t> made_{0};
  std::atomic<uint64_t> freed_{0};
};

// Base of what is counted.
template <KindName Name>
class Counted {
 protected:
  Counted() noexcept { kind_.count_made(); }
  Counted(const Counted&) noexcept : Counted() {}
  Counted& operator=(const Counted&) noexcept = default;
  ~Counted() { kind_.count_freed(); }

 private:
  static constexpr KindName kName = Name;
  static inline ObjectKind kind_{kName.text};
};

#else

inline constexpr bool kCountsObjects = false;

template <KindName Name>
class Counted {};

static_assert(std::is_empty_v<Counted<"">> && std::is_trivial_v<Counted<"">>);

#endif

// Every kind there is, by name; none in a build that does not count. Any thread.
inline std::vector<LiveObjects> live_objects() {
  std::vector<LiveObjects> all;
#ifdef RELAYCORE_COUNT_OBJECTS
  for (const ObjectKind* kind = ObjectKind::first(); kind; kind = kind->next())
    all.push_back(kind->figures());
  std::sort(all.begin(), all.end(), [](const LiveObjects& a, const LiveObjects& b) {
    return std::string_view(a.kind) < b.kind;
  });
#endif
  return all;
}

}  // namespace relaycore
