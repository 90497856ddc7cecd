#include "relaycore/utf8.h"

#include <cstring>
#include <string>

#include "check.h"
#include "utf8_reference.h"

namespace {

using relaycore::Utf8Validator;

const uint8_t* bytes(const std::string& s) { return reinterpret_cast<const uint8_t*>(s.data()); }

bool valid(const std::string& s) { return relaycore::is_utf8(bytes(s), s.size()); }

// Fed byte by byte, the index of the byte that is refused; s.size() if none is.
size_t refused_at(const std::string& s) {
  Utf8Validator v;
  for (size_t i = 0; i < s.size(); ++i)
    if (!v.feed(bytes(s) + i, 1)) return i;
  return s.size();
}

std::string encode(uint32_t c) {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
}

}  // namespace

TEST(every_code_point_but_the_surrogates_is_accepted) {
  for (uint32_t c = 0; c <= 0x10FFFF + 0x1000; ++c) {
    const bool expected = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
    if (valid(encode(c)) != expected) CHECK_EQ(c, 0xFFFFFFFFu);
  }
}

// All sequences of up to four bytes from both ends of every range that the grammar names.
TEST(sequences_are_judged_as_by_decoding_them) {
  static const char edges[] =
      "\x00\x41\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC1\xC2\xDF\xE0\xE1\xEC\xED\xEE\xEF\xF0\xF1\xF3\xF4"
      "\xF5\xFF";
  const std::string alphabet(edges, sizeof edges - 1);
  std::vector<std::string> sequences{""};
  size_t begin = 0;
  for (int length = 1; length <= 4; ++length) {
    const size_t end = sequences.size();
    for (size_t i = begin; i < end; ++i)
      for (const char byte : alphabet) sequences.push_back(sequences[i] + byte);
    begin = end;
  }
  for (const std::string& s : sequences)
    if (valid(s) != reference::is_utf8(s)) CHECK_EQ(s, "judged otherwise");
}

TEST(a_bad_byte_is_refused_as_soon_as_nothing_can_follow_it) {
  const std::string pieces[] = {"a",    "\xC3\xA9",    "\xE2\x82\xAC",    "\xF0\x9F\x8E\xA7",
                                "\xC0", "\xE0\x9F\xBF", "\xED\xA0\x80",   "\xF0\x8F\xBF\xBF",
                                "\xF5", "\x80",         "\xF4\x90\x80\x80"};
  for (const std::string& a : pieces)
    for (const std::string& b : pieces)
      for (const std::string& c : pieces) {
        const std::string s = a + b + c;
        size_t expected = 0;
        while (expected < s.size() && reference::begins_utf8(s.substr(0, expected + 1))) ++expected;
        CHECK_EQ(refused_at(s), expected);
      }
}

TEST(text_cut_at_any_two_places_is_judged_as_whole) {
  // Long enough for the sixteen-byte steps, with characters of every length on both sides of them.
  std::string text = "sixteen and more plain characters ";
  for (int i = 0; i < 3; ++i) text += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xA7 plain again, then some ";
  const std::string broken[] = {text, text + "\xE2\x82", text + "\xFF", "\xF4\x8F\xBF\xBF" + text};
  for (const std::string& s : broken) {
    for (size_t a = 0; a <= s.size(); ++a) {
      for (size_t b = a; b <= s.size(); ++b) {
        Utf8Validator v;
        const bool fed = v.feed(bytes(s), a) && v.feed(bytes(s) + a, b - a) &&
                         v.feed(bytes(s) + b, s.size() - b);
        CHECK_EQ(fed && v.complete(), reference::is_utf8(s));
      }
    }
  }
}

TEST(a_bad_byte_is_found_at_every_place_and_alignment) {
  for (size_t offset = 0; offset < 8; ++offset) {
    for (size_t length = 1; length <= 50; ++length) {
      for (size_t bad = 0; bad < length; ++bad) {
        std::string s(offset + length, 'x');
        s[offset + bad] = '\x80';
        CHECK(!relaycore::is_utf8(bytes(s) + offset, length));
      }
      const std::string s(offset + length, 'x');
      CHECK(relaycore::is_utf8(bytes(s) + offset, length));
    }
  }
}

TEST(a_character_left_half_is_incomplete_until_reset) {
  Utf8Validator v;
  CHECK(v.complete());
  CHECK(v.feed(bytes("\xE2\x82"), 2));
  CHECK(!v.complete());
  v.reset();
  CHECK(v.complete());
  CHECK(v.feed(bytes("ok"), 2));
  CHECK(v.feed(nullptr, 0));
  CHECK(v.complete());
}
