// A text (or any other message) for one or many connections: framed once, shared, immutable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>

#include "relaycore/live_objects.h"
#include "relaycore/ref.h"
#include "relaycore/ws_codec.h"

namespace relaycore {

// The bytes of one WebSocket message as they go over the wire.
class Text final : public Shared, Counted<"Text"> {
 public:
  // Room for a number that is only known when the text is written; Unix µs have 16 digits from
  // 2001 to 2286.
  static constexpr size_t kStampDigits = 16;

  static Ref<Text> message(WsOpcode opcode, std::string_view payload) {
    return make(opcode, payload, false);
  }
  // `payload` is cut where the number belongs; the number and a closing brace follow.
  static Ref<Text> stamped(std::string_view payload) {
    return make(WsOpcode::text, payload, true);
  }
  // A text completed with a number that is known now.
  static Ref<Text> completed(std::string_view payload, uint64_t number);
  // Bytes that are framed already.
  static Ref<Text> raw(std::string_view bytes) {
    Text* text = create(bytes.size());
    std::memcpy(text->bytes(), bytes.data(), bytes.size());
    return Ref<Text>::adopt(text);
  }
  // The answer to an upgrade request, and behind it the first message, unless that is empty.
  static Ref<Text> opening(std::string_view answer, std::string_view payload) {
    uint8_t header[10];
    size_t header_size =
        payload.empty() ? 0 : write_ws_header(header, WsOpcode::text, payload.size());
    Text* text = create(answer.size() + header_size + payload.size());
    uint8_t* end = std::copy(answer.begin(), answer.end(), text->bytes());
    end = std::copy(header, header + header_size, end);
    std::copy(payload.begin(), payload.end(), end);
    return Ref<Text>::adopt(text);
  }
  static Ref<Text> close(uint16_t code, std::string_view reason) {
    uint8_t frame[127];
    size_t n = write_ws_close(frame, code, reason);
    return raw({reinterpret_cast<const char*>(frame), n});
  }

  const uint8_t* data() const noexcept { return reinterpret_cast<const uint8_t*>(this + 1); }
  uint32_t size() const noexcept { return size_; }
  bool is_stamped() const noexcept { return is_stamped_; }

  // Writes the number into its place. Only for a text that one connection has for itself.
  void stamp(uint64_t number) noexcept {
    uint8_t* digit = bytes() + size_ - 1;
    for (size_t i = 0; i < kStampDigits; ++i, number /= 10) *--digit = '0' + number % 10;
  }

  static void destroy(Text* text) noexcept {
    text->~Text();
    ::operator delete(text);
  }

 private:
  explicit Text(uint32_t size) noexcept : size_(size) {}

  uint8_t* bytes() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }

  static Text* create(size_t size) {
    return new (::operator new(sizeof(Text) + size)) Text(static_cast<uint32_t>(size));
  }

  static Ref<Text> make(WsOpcode opcode, std::string_view payload, bool is_stamped) {
    size_t extra = is_stamped ? kStampDigits + 1 : 0;
    uint8_t header[10];
    size_t header_size = write_ws_header(header, opcode, payload.size() + extra);
    Text* text = create(header_size + payload.size() + extra);
    std::memcpy(text->bytes(), header, header_size);
    std::memcpy(text->bytes() + header_size, payload.data(), payload.size());
    if (is_stamped) {
      text->is_stamped_ = true;
      text->bytes()[text->size_ - 1] = '}';
      text->stamp(0);
    }
    return Ref<Text>::adopt(text);
  }

  uint32_t size_;
  bool is_stamped_ = false;
};

inline Ref<Text> Text::completed(std::string_view payload, uint64_t number) {
  char digits[24];
  char* end = digits + sizeof digits;
  char* p = end;
  *--p = '}';
  do {
    *--p = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number);
  std::string_view tail(p, static_cast<size_t>(end - p));
  uint8_t header[10];
  size_t header_size = write_ws_header(header, WsOpcode::text, payload.size() + tail.size());
  Text* text = create(header_size + payload.size() + tail.size());
  std::memcpy(text->bytes(), header, header_size);
  std::memcpy(text->bytes() + header_size, payload.data(), payload.size());
  std::memcpy(text->bytes() + header_size + payload.size(), tail.data(), tail.size());
  return Ref<Text>::adopt(text);
}

}  // namespace relaycore
