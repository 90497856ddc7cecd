// Memory for objects that are many and stay long.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"
#include "relaycore/slots.h"

using namespace relaycore;

namespace {

constexpr size_t kSize = 384, kAlignment = 64;
constexpr size_t kMany = 1000;  // several times of what is fetched at once, and a part of it
// Of all tests: memory goes back to nobody, so it must not go out of sight either.
constinit Slots<kSize, kAlignment> slots;

std::vector<uint8_t*> take(size_t count) {
  std::vector<uint8_t*> taken(count);
  for (uint8_t*& slot : taken) slot = static_cast<uint8_t*>(slots.take());
  return taken;
}

void give(const std::vector<uint8_t*>& taken) {
  for (uint8_t* slot : taken) slots.give(slot);
}

void fill(const std::vector<uint8_t*>& taken, size_t first) {
  for (size_t i = 0; i < taken.size(); ++i)
    std::memset(taken[i], static_cast<int>((first + i) % 251), kSize);
}

// Whether each still holds what fill() has written, in every byte.
bool intact(const std::vector<uint8_t*>& taken, size_t first) {
  for (size_t i = 0; i < taken.size(); ++i)
    if (!std::all_of(taken[i], taken[i] + kSize,
                     [&](uint8_t byte) { return byte == (first + i) % 251; }))
      return false;
  return true;
}

TEST(many_are_aligned_and_apart) {
  const std::vector<uint8_t*> taken = take(kMany);
  for (const uint8_t* slot : taken) CHECK_EQ(reinterpret_cast<uintptr_t>(slot) % kAlignment, 0u);
  std::vector<uint8_t*> sorted = taken;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 1; i < sorted.size(); ++i)
    CHECK(static_cast<size_t>(sorted[i] - sorted[i - 1]) >= kSize);
  fill(taken, 0);
  CHECK(intact(taken, 0));
  give(taken);
}

TEST(what_was_given_back_is_taken_first) {
  std::vector<uint8_t*> kept = take(kMany), back;
  for (size_t i = 0; i < kept.size(); ++i) {  // every other one
    back.push_back(kept[i]);
    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
  }
  fill(kept, 7);
  give(back);
  std::vector<uint8_t*> again = take(back.size());
  fill(again, 99);
  CHECK(intact(kept, 7));
  CHECK(intact(again, 99));
  std::sort(back.begin(), back.end());
  std::sort(again.begin(), again.end());
  CHECK(back == again);
  // There is none left: what comes now was never taken.
  for (uint8_t* fresh : take(1)) {
    CHECK(!std::binary_search(again.begin(), again.end(), fresh));
    CHECK(std::find(kept.begin(), kept.end(), fresh) == kept.end());
    slots.give(fresh);
  }
  give(again);
  give(kept);
}

TEST(threads_never_hold_the_same) {
  constexpr size_t kThreads = 4, kRounds = 200;
  bool held[kThreads] = {};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([t, &held] {
      held[t] = true;
      for (size_t round = 0; round < kRounds; ++round) {
        const std::vector<uint8_t*> taken = take(1 + (round + t) % 50);
        fill(taken, 60 * t + round);
        if (!intact(taken, 60 * t + round)) held[t] = false;
        give(taken);
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(std::all_of(held, held + kThreads, [](bool ok) { return ok; }));
}

}  // namespace
