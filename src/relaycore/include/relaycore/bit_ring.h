// One bit per position of a timeline, for the newest `capacity` positions. Single-threaded.
//
// Positions are free-running 64-bit numbers; position p lives in bit p & (capacity - 1). Ranges
// are worked on a word at a time, and a range never exceeds the capacity.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace relaycore {

class BitRing {
 public:
  BitRing() = default;

  // `words` is memory for capacity / 64 words that the caller owns; capacity is a power of two.
  BitRing(std::uint64_t* words, std::size_t capacity) noexcept
      : words_(words), mask_(capacity - 1) {
    reset();
  }

  static constexpr std::size_t words_for(std::size_t capacity) noexcept { return capacity / 64; }

  void reset() noexcept { std::memset(words_, 0, (mask_ + 1) / 8); }

  bool test(std::uint64_t position) const noexcept {
    const std::size_t bit = static_cast<std::size_t>(position) & mask_;
    return (words_[bit / 64] >> (bit % 64)) & 1;
  }

  // Sets the range; returns how many of its bits were not set before.
  std::size_t set(std::uint64_t position, std::size_t n) noexcept {
    std::size_t fresh = 0;
    each(position, n, [&fresh](std::uint64_t& word, std::uint64_t bits) {
      fresh += static_cast<std::size_t>(std::popcount(bits & ~word));
      word |= bits;
    });
    return fresh;
  }

  void clear(std::uint64_t position, std::size_t n) noexcept {
    each(position, n, [](std::uint64_t& word, std::uint64_t bits) { word &= ~bits; });
  }

  // How many bits from `position` on have the value that the first one has; at most `limit` >= 1.
  std::size_t run(std::uint64_t position, std::size_t limit) const noexcept {
    const std::uint64_t flip = test(position) ? ~std::uint64_t{0} : 0;
    std::size_t length = 0;
    while (length < limit) {
      const std::size_t bit = static_cast<std::size_t>(position + length) & mask_;
      const std::size_t offset = bit % 64;
      // A bit that differs from the first is 1 in here.
      const std::uint64_t differs = (words_[bit / 64] ^ flip) >> offset;
      if (differs != 0) {
        return std::min(limit, length + static_cast<std::size_t>(std::countr_zero(differs)));
      }
      length += 64 - offset;
    }
    return limit;
  }

 private:
  template <class F>
  void each(std::uint64_t position, std::size_t n, F&& f) noexcept {
    while (n != 0) {
      const std::size_t bit = static_cast<std::size_t>(position) & mask_;
      const std::size_t offset = bit % 64;
      const std::size_t count = std::min<std::size_t>(n, 64 - offset);
      const std::uint64_t ones = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
      f(words_[bit / 64], ones << offset);
      position += count;
      n -= count;
    }
  }

  std::uint64_t* words_ = nullptr;
  std::size_t mask_ = 63;
};

}  // namespace relaycore
