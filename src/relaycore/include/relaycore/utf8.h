// Incremental UTF-8 check: text may arrive in pieces cut anywhere, also inside a character.
//
// The automaton is the table of well-formed byte sequences, Unicode 15 table 3-7 (the same set
// as the grammar of RFC 3629, section 4), written as what may come next: how many continuation
// bytes are still due and the range the first of them must lie in. Overlong forms, surrogates and
// values over U+10FFFF are refused at the first byte that makes them certain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace relaycore {

class Utf8Validator {
 public:
  // False as soon as the bytes so far cannot begin any well-formed text. After false the state is
  // spent: reset() before the next text.
  bool feed(const uint8_t* p, size_t n) noexcept {
    const uint8_t* const end = p + n;
    while (p != end) {
      if (due_ == 0) {
        while (end - p >= 16 && all_ascii_16(p)) p += 16;
        while (p != end && *p < 0x80) ++p;
        if (p == end) return true;
        if (!lead(*p++)) return false;
      } else {
        const uint8_t byte = *p++;
        if (byte < low_ || byte > high_) return false;
        low_ = 0x80;
        high_ = 0xBF;
        --due_;
      }
    }
    return true;
  }

  // True if the text so far may end here: no character is left half.
  bool complete() const noexcept { return due_ == 0; }

  void reset() noexcept { due_ = 0; }

 private:
  static bool all_ascii_16(const uint8_t* p) noexcept {
    uint64_t a, b;
    std::memcpy(&a, p, 8);
    std::memcpy(&b, p + 8, 8);
    return ((a | b) & 0x8080808080808080u) == 0;
  }

  bool lead(uint8_t byte) noexcept {
    low_ = 0x80;
    high_ = 0xBF;
    if (byte >= 0xC2 && byte <= 0xDF) {
      due_ = 1;
    } else if ((byte & 0xF0) == 0xE0) {
      due_ = 2;
      if (byte == 0xE0) low_ = 0xA0;   // shorter form exists
      if (byte == 0xED) high_ = 0x9F;  // surrogates
    } else if (byte >= 0xF0 && byte <= 0xF4) {
      due_ = 3;
      if (byte == 0xF0) low_ = 0x90;   // shorter form exists
      if (byte == 0xF4) high_ = 0x8F;  // over U+10FFFF
    } else {
      return false;  // continuation without lead, C0, C1, F5..FF
    }
    return true;
  }

  uint8_t due_ = 0;               // continuation bytes still to come
  uint8_t low_ = 0, high_ = 0;    // what the next of them may be; meaningless while due_ is 0
};

static_assert(sizeof(Utf8Validator) <= 4, "a connection holds one");

// A whole text at once.
inline bool is_utf8(const uint8_t* p, size_t n) noexcept {
  Utf8Validator v;
  return v.feed(p, n) && v.complete();
}

}  // namespace relaycore
