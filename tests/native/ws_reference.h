// A WebSocket decoder that is slow and obvious, and a way to run both it and the real one over the
// same bytes. Used by the tests and by the fuzzer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "relaycore/ws_codec.h"
#include "utf8_reference.h"

namespace reference {

// What a stream of bytes came to: the messages in order, one line each, and the code of the error
// that ended it, 0 if none did.
struct Outcome {
  std::vector<std::string> messages;
  unsigned error = 0;

  friend bool operator==(const Outcome&, const Outcome&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Outcome& o) {
    for (const std::string& m : o.messages) out << m << " | ";
    return out << "error " << o.error;
  }
};

inline std::string close_line(unsigned code, std::string_view reason) {
  return "close " + std::to_string(code) + " " + std::string(reason);
}

// Section 5 of RFC 6455, frame by frame, over the whole stream at once.
inline Outcome decode(std::string_view wire, const relaycore::WsLimits& limits) {
  Outcome out;
  const auto fails = [&](unsigned code) {
    out.error = code;
    return out;
  };
  std::string message;
  unsigned open = 0;  // opcode of the message that is under way
  while (!wire.empty()) {
    const auto byte = [&](size_t i) { return static_cast<unsigned>(static_cast<uint8_t>(wire[i])); };
    const bool fin = byte(0) & 0x80;
    const unsigned opcode = byte(0) & 0x0F;
    const bool control = opcode >= 8;
    if (byte(0) & 0x70) return fails(1002);
    if ((opcode > 2 && opcode < 8) || opcode > 10) return fails(1002);
    if (control && !fin) return fails(1002);
    if (opcode == 0 && open == 0) return fails(1002);
    if ((opcode == 1 || opcode == 2) && open != 0) return fails(1002);
    if (wire.size() < 2) return out;
    if ((byte(1) & 0x80) == 0) return fails(1002);
    uint64_t length = byte(1) & 0x7F;
    if (control && length > 125) return fails(1002);
    const size_t width = length == 126 ? 2 : length == 127 ? 8 : 0;
    const size_t header = 2 + width + 4;
    if (wire.size() < header) return out;
    if (width != 0) {
      length = 0;
      for (size_t i = 0; i < width; ++i) length = length * 256 + byte(2 + i);
      if (length > 0x7FFF'FFFF'FFFF'FFFF) return fails(1002);
      if (width == 2 && length < 126) return fails(1002);
      if (width == 8 && length < 65536) return fails(1002);
    }
    if (opcode == 1 || opcode == 2) open = opcode;
    if (!control && open == 2 && limits.refuse_binary != 0) return fails(limits.refuse_binary);
    const size_t limit = open == 1 ? limits.max_text : limits.max_binary;
    if (!control && message.size() + length > limit) return fails(1009);
    const std::string_view key = wire.substr(2 + width, 4);
    wire.remove_prefix(header);
    const bool whole = wire.size() >= length;
    std::string payload(wire.substr(0, whole ? static_cast<size_t>(length) : wire.size()));
    wire.remove_prefix(payload.size());
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(payload[i] ^ key[i % 4]);

    if (control) {
      if (!whole) return out;
      if (opcode == 9) out.messages.push_back("ping " + payload);
      if (opcode == 10) out.messages.push_back("pong " + payload);
      if (opcode == 8) {
        if (payload.empty()) {
          out.messages.push_back(close_line(1005, ""));
          return out;
        }
        if (payload.size() == 1) return fails(1002);
        const unsigned code = static_cast<uint8_t>(payload[0]) * 256u + static_cast<uint8_t>(payload[1]);
        if (code < 1000 || code == 1004 || code == 1005 || code == 1006 ||
            (code >= 1015 && code < 3000) || code >= 5000)
          return fails(1002);
        if (!is_utf8(payload.substr(2))) return fails(1007);
        out.messages.push_back(close_line(code, payload.substr(2)));
        return out;
      }
      continue;
    }
    message += payload;
    if (open == 1 && !begins_utf8(message)) return fails(1007);
    if (!whole) return out;
    if (!fin) continue;
    if (open == 1 && !is_utf8(message)) return fails(1007);
    out.messages.push_back((open == 1 ? "text " : "binary ") + message);
    message.clear();
    open = 0;
  }
  return out;
}

// The handler the real parser is run with.
struct Recorder {
  Outcome outcome;
  std::function<bool()> go_on = [] { return true; };

  static std::string_view view(const uint8_t* p, size_t n) {
    return {reinterpret_cast<const char*>(p), n};
  }
  bool add(const char* kind, const uint8_t* p, size_t n) {
    outcome.messages.push_back(kind + std::string(view(p, n)));
    return go_on();
  }
  bool on_text(const uint8_t* p, size_t n) { return add("text ", p, n); }
  bool on_binary(const uint8_t* p, size_t n) { return add("binary ", p, n); }
  bool on_ping(const uint8_t* p, size_t n) { return add("ping ", p, n); }
  bool on_pong(const uint8_t* p, size_t n) { return add("pong ", p, n); }
  bool on_close(uint16_t code, const uint8_t* p, size_t n) {
    outcome.messages.push_back(close_line(code, view(p, n)));
    return go_on();
  }
};

// Gives one piece to the parser from an allocation of exactly its size, so that a sanitizer sees
// every step beyond it, and goes on behind each pause. False if the parser breaks its own rules.
inline bool feed_piece(relaycore::WsParser& parser, Recorder& recorder, std::string_view piece,
                       const relaycore::WsLimits& limits) {
  const bool was_closed = parser.closed();
  while (true) {
    const auto copy = std::make_unique<uint8_t[]>(piece.size());
    piece.copy(reinterpret_cast<char*>(copy.get()), piece.size());
    const size_t before = recorder.outcome.messages.size();
    const auto result = parser.feed(copy.get(), piece.size(), limits, recorder);
    const size_t most = std::max(limits.max_text, limits.max_binary);
    if (parser.buffered() > parser.allocated()) return false;
    if (parser.allocated() > std::max(most, most + relaycore::kWsMaxControl)) return false;
    if (result.consumed > piece.size()) return false;
    if (result.consumed < piece.size() && (!result.paused || parser.closed())) return false;
    if (result.paused && recorder.outcome.messages.size() == before) return false;
    if ((result.error_code != 0) != (result.error != nullptr)) return false;
    if (was_closed && (result.error_code != 0 || recorder.outcome.messages.size() != before))
      return false;
    if (result.error_code != 0) recorder.outcome.error = result.error_code;
    piece.remove_prefix(result.consumed);
    if (piece.empty()) return true;
  }
}

// The bytes of one client frame. `first` is the first header byte, 0x81 a whole text.
inline std::string client_frame(unsigned first, std::string_view payload, uint32_t key = 0x37FA213D) {
  std::string out{static_cast<char>(first)};
  const size_t n = payload.size();
  const unsigned width = n < 126 ? 0 : n < 65536 ? 2 : 8;
  out += static_cast<char>(0x80 | (width == 0 ? n : width == 2 ? 126 : 127));
  for (unsigned i = width; i-- > 0;) out += static_cast<char>(uint64_t{n} >> (8 * i));
  const char mask[4] = {static_cast<char>(key >> 24), static_cast<char>(key >> 16),
                        static_cast<char>(key >> 8), static_cast<char>(key)};
  out.append(mask, 4);
  for (size_t i = 0; i < n; ++i) out += static_cast<char>(payload[i] ^ mask[i % 4]);
  return out;
}

}  // namespace reference
