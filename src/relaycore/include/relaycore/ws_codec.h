// WebSocket framing, server role (RFC 6455; no extension, no subprotocol). No input or output
// happens here: bytes go in, messages come out.
//
//    0               1               2               3
//   +-+-+-+-+-------+-+-------------+-------------------------------+
//   |F|R|R|R| opcode|M| length      | 16 bits if 126, 64 if 127     |   big-endian
//   +-+-+-+-+-------+-+-------------+-------------------------------+
//   | mask key, 4 bytes: always from a client, never from a server  |
//   +---------------------------------------------------------------+
//   | payload, byte i xor key[i mod 4] ...                          |
//   +---------------------------------------------------------------+
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

#include "relaycore/utf8.h"

namespace relaycore {

enum class WsOpcode : uint8_t {
  continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10,
};

inline constexpr size_t kWsMaxControl = 125;       // payload of a control frame
inline constexpr size_t kWsMaxClientHeader = 14;   // 2, 8 of length, 4 of mask key
inline constexpr size_t kWsMaxServerHeader = 10;   // no mask key
inline constexpr size_t kWsMaxClose = 2 + kWsMaxControl;

// Longest messages accepted, in payload bytes, summed over fragments.
struct WsLimits {
  size_t max_text, max_binary;
  // Not 0: binary messages have no place here and are refused with this code at their first header,
  // before anything of them is kept.
  uint16_t refuse_binary = 0;
};

// Codes that may stand in a close frame: assigned by RFC 6455 or IANA, or free for use.
constexpr bool is_valid_close_code(unsigned code) noexcept {
  return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
         (code >= 3000 && code <= 4999);
}

// ---- writing: unmasked, final frames; `out` has room for the named maximum ----

// Writes at most kWsMaxServerHeader bytes; returns how many.
inline size_t write_ws_header(uint8_t* out, WsOpcode opcode, size_t payload_bytes) noexcept {
  out[0] = static_cast<uint8_t>(0x80 | static_cast<uint8_t>(opcode));
  if (payload_bytes < 126) {
    out[1] = static_cast<uint8_t>(payload_bytes);
    return 2;
  }
  const unsigned width = payload_bytes <= 0xFFFF ? 2 : 8;
  out[1] = width == 2 ? 126 : 127;
  for (unsigned i = 0; i < width; ++i)
    out[2 + i] = static_cast<uint8_t>(uint64_t{payload_bytes} >> (8 * (width - 1 - i)));
  return 2 + width;
}

// A whole close frame, at most kWsMaxClose bytes; returns how many. `reason` is UTF-8 and is cut
// at a character boundary to what a control frame holds. Code 1005 means none: an empty payload.
inline size_t write_ws_close(uint8_t* out, uint16_t code, std::string_view reason) noexcept {
  if (code == 1005) return write_ws_header(out, WsOpcode::close, 0);
  size_t n = std::min(reason.size(), kWsMaxControl - 2);
  if (n < reason.size())
    while (n > 0 && (static_cast<uint8_t>(reason[n]) & 0xC0) == 0x80) --n;
  const size_t header = write_ws_header(out, WsOpcode::close, 2 + n);
  out[header] = static_cast<uint8_t>(code >> 8);
  out[header + 1] = static_cast<uint8_t>(code);
  if (n != 0) std::memcpy(out + header + 2, reason.data(), n);
  return header + 2 + n;
}

// ---- reading ----

// Exclusive-or of `p` with the repeated key, in place; then turns the key, so that the next call
// may go on with the bytes that follow. The word loop is one that compilers vectorise.
inline void ws_unmask(uint8_t* p, size_t n, uint8_t (&key)[4]) noexcept {
  uint64_t mask;
  std::memcpy(&mask, key, 4);
  std::memcpy(reinterpret_cast<uint8_t*>(&mask) + 4, key, 4);
  const size_t words = n / 8;
  for (size_t i = 0; i < words; ++i) {
    uint64_t word;
    std::memcpy(&word, p + 8 * i, 8);
    word ^= mask;
    std::memcpy(p + 8 * i, &word, 8);
  }
  for (size_t i = 8 * words; i < n; ++i) p[i] ^= key[i % 4];
  const uint8_t before[4] = {key[0], key[1], key[2], key[3]};
  for (size_t i = 0; i < 4; ++i) key[i] = before[(n + i) % 4];
}

// Takes a client's bytes in pieces cut anywhere and calls a handler for each message.
//
// The handler is a policy, any class with these members, called in wire order:
//   bool on_text(const uint8_t* p, size_t n);     // well-formed UTF-8
//   bool on_binary(const uint8_t* p, size_t n);
//   bool on_ping(const uint8_t* p, size_t n);     // n <= 125; to be answered with a pong
//   bool on_pong(const uint8_t* p, size_t n);
//   bool on_close(uint16_t code, const uint8_t* p, size_t n);   // 1005: the peer gave no code
// Each returns true to go on, or false to stop behind this message, say to pause reading. The
// bytes are lent until the handler returns and are not aligned. A handler must neither feed nor
// destroy the parser that calls it. What it throws goes through feed(); such a parser is of no more use.
//
// Memory: an idle connection costs the object alone. A message that is unfragmented and complete
// within one feed() is handed over where it stands. Otherwise it is collected in a buffer that
// grows with the bytes that came, never on the word of a header, to at most the limit (and one
// control frame's payload), and that is freed when the message is done.
//
// One thread at a time; not tied to any.
class WsParser {
 public:
  struct Result {
    size_t consumed;      // bytes taken; the caller gives the rest again
    bool paused;          // a handler returned false
    uint16_t error_code;  // 0, or what to close with: 1002, 1007, 1009
    const char* error;    // nullptr, or why: a static phrase
  };

  WsParser() noexcept = default;
  ~WsParser() { std::free(held_); }
  WsParser(const WsParser&) = delete;
  WsParser& operator=(const WsParser&) = delete;

  // Unmasks `data` in place as far as it is consumed. Less than `n` is consumed only when paused.
  // After an error or a close frame the parser is closed: it consumes everything and says nothing.
  template <class Handler>
  Result feed(uint8_t* data, size_t n, const WsLimits& limits, Handler& handler) {
    size_t at = 0;
    while (!closed_) {
      if (!in_payload_) {
        if (const Fault fault = read_header(data, n, at, limits); fault.code != 0)
          return fail(n, fault);
        if (!in_payload_) return {at, false, 0, nullptr};
      }
      const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, n - at));
      uint8_t* const chunk = data + at;
      ws_unmask(chunk, take, mask_);
      at += take;
      left_ -= take;
      bool go_on = true;
      const Fault fault = is_control() ? take_control(chunk, take, handler, go_on)
                                       : take_data(chunk, take, limits, handler, go_on);
      if (fault.code != 0) return fail(n, fault);
      if (closed_) break;
      if (!go_on) return {at, true, 0, nullptr};
      if (left_ != 0) return {at, false, 0, nullptr};
    }
    return {n, false, 0, nullptr};
  }

  // Payload bytes held of messages that are not complete yet.
  size_t buffered() const noexcept { return size() + control_size_; }

  // Payload bytes that there is memory for.
  size_t allocated() const noexcept { return held_ ? held_->capacity : 0; }

  // True after an error or a close frame.
  bool closed() const noexcept { return closed_; }

 private:
  static constexpr size_t kSmallestBuffer = 256;

  struct Fault {
    uint16_t code = 0;
    const char* what = nullptr;
  };

  // What came of messages that are not complete yet; the bytes follow: of the message first, then of
  // a control frame.
  struct Held {
    size_t size;  // of the message
    size_t capacity;
    uint8_t* bytes() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }
  };

  size_t size() const noexcept { return held_ ? held_->size : 0; }

  WsOpcode opcode() const noexcept { return static_cast<WsOpcode>(header_[0] & 0x0F); }
  bool is_final() const noexcept { return (header_[0] & 0x80) != 0; }
  bool is_control() const noexcept { return (header_[0] & 0x08) != 0; }

  Result fail(size_t n, Fault fault) noexcept {
    closed_ = true;
    release();
    return {n, false, fault.code, fault.what};
  }

  // Collects header bytes and judges each as soon as it is there; sets in_payload_ when whole.
  Fault read_header(const uint8_t* data, size_t n, size_t& at, const WsLimits& limits) noexcept {
    while (at < n) {
      header_[header_size_++] = data[at++];
      if (header_size_ == 1) {
        if (const Fault fault = check_first_byte(); fault.code != 0) return fault;
      } else if (header_size_ == 2) {
        if ((header_[1] & 0x80) == 0) return {1002, "client frame without mask"};
        if (is_control() && (header_[1] & 0x7F) > kWsMaxControl)
          return {1002, "control frame too long"};
      }
      const unsigned width = length_width();
      if (header_size_ == 2 + width + 4) return begin_payload(width, limits);
    }
    return {};
  }

  // Bytes of the extended length. Before the second byte is known the answer is any but complete.
  unsigned length_width() const noexcept {
    if (header_size_ < 2) return 8;
    const unsigned length = header_[1] & 0x7F;
    return length < 126 ? 0 : length == 126 ? 2 : 8;
  }

  Fault check_first_byte() const noexcept {
    if ((header_[0] & 0x70) != 0) return {1002, "reserved bits set"};
    switch (opcode()) {
      case WsOpcode::continuation:
        if (message_ == WsOpcode::continuation) return {1002, "continuation of no message"};
        return {};
      case WsOpcode::text:
      case WsOpcode::binary:
        if (message_ != WsOpcode::continuation) return {1002, "message inside a message"};
        return {};
      case WsOpcode::close:
      case WsOpcode::ping:
      case WsOpcode::pong:
        if (!is_final()) return {1002, "fragmented control frame"};
        return {};
    }
    return {1002, "reserved opcode"};
  }

  Fault begin_payload(unsigned width, const WsLimits& limits) noexcept {
    uint64_t length = header_[1] & 0x7F;
    if (width != 0) {
      length = 0;
      for (unsigned i = 0; i < width; ++i) length = length << 8 | header_[2 + i];
      if (length >> 63 != 0) return {1002, "length with the top bit set"};
      if (length < 126 || (width == 8 && length <= 0xFFFF))
        return {1002, "length not in its shortest form"};
    }
    std::memcpy(mask_, header_ + 2 + width, 4);
    header_size_ = 0;
    in_payload_ = true;
    left_ = length;
    if (is_control()) return {};
    // utf8_ stands between characters here: a text that ended within one was an error.
    if (opcode() != WsOpcode::continuation) message_ = opcode();
    if (message_ == WsOpcode::binary && limits.refuse_binary != 0)
      return {limits.refuse_binary, "binary messages have no place here"};
    const size_t limit = message_limit(limits);
    if (size() > limit || length > limit - size()) return {1009, "message too big"};
    return {};
  }

  size_t message_limit(const WsLimits& limits) const noexcept {
    return message_ == WsOpcode::text ? limits.max_text : limits.max_binary;
  }

  template <class Handler>
  Fault take_data(const uint8_t* chunk, size_t n, const WsLimits& limits, Handler& handler,
                  bool& go_on) {
    if (message_ == WsOpcode::text && !utf8_.feed(chunk, n)) return {1007, "text is not UTF-8"};
    const bool done = left_ == 0 && is_final();
    const uint8_t* whole = chunk;
    size_t total = n;
    if (!done || size() != 0) {
      const uint64_t most = is_final() ? size() + n + left_ : message_limit(limits);
      if (!append(chunk, n, size(), most)) return {1009, "no memory for the message"};
      if (held_) {  // not if all that came was empty
        held_->size += n;
        whole = held_->bytes();
        total = held_->size;
      }
    }
    if (left_ == 0) in_payload_ = false;
    if (!done) return {};
    if (message_ == WsOpcode::text && !utf8_.complete()) return {1007, "text is not UTF-8"};
    go_on = message_ == WsOpcode::text ? handler.on_text(whole, total)
                                       : handler.on_binary(whole, total);
    message_ = WsOpcode::continuation;
    release();
    return {};
  }

  template <class Handler>
  Fault take_control(const uint8_t* chunk, size_t n, Handler& handler, bool& go_on) {
    const uint8_t* whole = chunk;
    size_t total = n;
    if (left_ != 0 || control_size_ != 0) {
      // Half a control frame waits behind the message that it may interrupt.
      if (!append(chunk, n, size() + control_size_, size() + kWsMaxControl))
        return {1009, "no memory for the message"};
      control_size_ = static_cast<uint8_t>(control_size_ + n);
      if (held_) whole = held_->bytes() + held_->size;
      total = control_size_;
    }
    if (left_ != 0) return {};
    in_payload_ = false;
    control_size_ = 0;
    switch (opcode()) {
      case WsOpcode::ping: go_on = handler.on_ping(whole, total); break;
      case WsOpcode::pong: go_on = handler.on_pong(whole, total); break;
      default:
        if (const Fault fault = take_close(whole, total, handler, go_on); fault.code != 0)
          return fault;
    }
    if (size() == 0) release();
    return {};
  }

  template <class Handler>
  Fault take_close(const uint8_t* p, size_t n, Handler& handler, bool& go_on) {
    uint16_t code = 1005;
    if (n == 1) return {1002, "close frame with half a code"};
    if (n >= 2) {
      code = static_cast<uint16_t>(p[0] << 8 | p[1]);
      p += 2;
      n -= 2;
      if (!is_valid_close_code(code)) return {1002, "close code not allowed"};
      if (!is_utf8(p, n)) return {1007, "close reason is not UTF-8"};
    }
    closed_ = true;
    go_on = handler.on_close(code, p, n);
    if (held_) held_->size = 0;
    return {};
  }

  // Puts n bytes at held_->bytes()[at]; doubles the room when it is full, up to the `most` bytes that
  // may still be needed.
  bool append(const uint8_t* p, size_t n, size_t at, uint64_t most) noexcept {
    if (n == 0) return true;
    const size_t needed = at + n;
    if (!held_ || needed > held_->capacity) {
      const size_t doubled = static_cast<size_t>(std::min<uint64_t>(
          std::max<size_t>(2 * needed, kSmallestBuffer), most));
      const size_t capacity = std::max(needed, doubled);
      const size_t message = size();
      void* const grown = std::realloc(held_, sizeof(Held) + capacity);
      if (grown == nullptr) return false;
      held_ = new (grown) Held{message, capacity};
    }
    std::memcpy(held_->bytes() + at, p, n);
    return true;
  }

  void release() noexcept {
    std::free(held_);
    held_ = nullptr;
    control_size_ = 0;
  }

  Held* held_ = nullptr;  // nullptr: nothing waits
  uint64_t left_ = 0;     // payload of the current frame still to come
  uint8_t header_[kWsMaxClientHeader] = {};  // byte 0 stays valid while the payload comes
  uint8_t header_size_ = 0;
  uint8_t control_size_ = 0;
  uint8_t mask_[4] = {};       // turned so that [0] is for the next byte
  WsOpcode message_ = WsOpcode::continuation;  // the open message's kind; continuation: none
  Utf8Validator utf8_;
  bool in_payload_ = false;
  bool closed_ = false;
};

static_assert(sizeof(WsParser) <= 48, "a connection holds one");

}  // namespace relaycore
