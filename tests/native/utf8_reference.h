// UTF-8 decided the long way round: decode to a number, then look at the number. Shares nothing
// with the automaton under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace reference {

// Length of the character that `s` begins with, 0 if it begins with none.
inline size_t character(std::string_view s) {
  if (s.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(s[i])); };
  size_t length = 0;
  uint32_t value = 0, least = 0;
  if (byte(0) < 0x80) return 1;
  if (byte(0) >> 5 == 0b110) { length = 2; value = byte(0) & 0x1F; least = 0x80; }
  if (byte(0) >> 4 == 0b1110) { length = 3; value = byte(0) & 0x0F; least = 0x800; }
  if (byte(0) >> 3 == 0b11110) { length = 4; value = byte(0) & 0x07; least = 0x10000; }
  if (length == 0 || s.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 0b10) return 0;
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  return value >= least && value <= 0x10FFFF && !surrogate ? length : 0;
}

// What is left of `s` behind all its whole characters.
inline std::string_view rest(std::string_view s) {
  while (const size_t n = character(s)) s.remove_prefix(n);
  return s;
}

inline bool is_utf8(std::string_view s) { return rest(s).empty(); }

// True if some continuation makes `s` well-formed. The bytes tried lie at both ends of each range
// that any rule could draw.
inline bool begins_utf8(std::string_view s) {
  s = rest(s);
  if (s.empty()) return true;
  if (s.size() > 3) return false;
  const auto completes = [](auto&& self, const std::string& text, int more) -> bool {
    if (character(text) == text.size()) return true;
    if (more == 0) return false;
    for (const unsigned char byte : {0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF})
      if (self(self, text + static_cast<char>(byte), more - 1)) return true;
    return false;
  };
  return completes(completes, std::string(s), 4 - static_cast<int>(s.size()));
}

}  // namespace reference
