// One connection of a load client: the HTTP request before it, the handshake, and an incremental
// parser of messages that looks at headers alone. Payload is counted and forgotten. A stream over
// plain HTTP is the same messages in an endless body, into which a listener comes anywhere.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <list>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "load_stream.h"
#include "relaycore/load_client.h"
#include "relaycore/packet.h"
#include "relaycore/ws_codec.h"

namespace relaycore {

// One fixed key: whether the answer fits is checked all the same (RFC 6455, section 1.3).
inline constexpr std::string_view kLoadKey = "dGhlIHNhbXBsZSBub25jZQ==";
inline constexpr std::string_view kLoadAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

// A client's header: the mask key is zero, which leaves the payload as it is.
inline std::string ws_client_header(WsOpcode opcode, size_t payload_bytes) {
  uint8_t header[kWsMaxServerHeader];
  const size_t n = write_ws_header(header, opcode, payload_bytes);
  header[1] |= 0x80;
  std::string out(reinterpret_cast<const char*>(header), n);
  return out.append(4, '\0');
}

// The number behind `name` in a JSON text; 0 when there is none.
inline int64_t json_number(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  int64_t value = 0;
  if (at != text.npos) std::from_chars(text.data() + at + name.size(), text.data() + text.size(), value);
  return value;
}

// The text behind `"name":` and a quote, up to the next one; empty when there is none.
inline std::string_view json_text(std::string_view text, std::string_view name) noexcept {
  size_t at = text.find(name);
  if (at == text.npos) return {};
  at += name.size();
  while (at < text.size() && text[at] == ' ') ++at;
  if (at == text.size() || text[at] != '"') return {};
  const std::string_view rest = text.substr(at + 1);
  return rest.substr(0, rest.find('"'));
}

// The value of a field in the head of an HTTP message, without the whitespace around it; empty when
// there is none. `name` is in lower case; the head may have it in any (RFC 9110, section 5.1).
inline std::string_view head_field(std::string_view head, std::string_view name) noexcept {
  const auto same = [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + ('a' - 'A') : b); };
  for (size_t at = head.find("\r\n"); at != head.npos; at = head.find("\r\n", at)) {
    at += 2;
    const std::string_view line = head.substr(at, head.find("\r\n", at) - at);
    if (line.size() <= name.size() || line[name.size()] != ':' ||
        !std::equal(name.begin(), name.end(), line.begin(), same))
      continue;
    std::string_view value = line.substr(name.size() + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    return value;
  }
  return {};
}

// What a connection tells its owner. One object for all connections; calls come from `feed`.
class LoadConnection;
class LoadObserver {
 public:
  virtual void on_answer(LoadConnection&, std::string_view body) = 0;  // of HTTP, with a 200
  virtual void on_open(LoadConnection&) = 0;  // the 101 came, or the head of a stream
  virtual void on_text(LoadConnection&, std::string_view text) = 0;    // its first 4 KiB
  virtual void on_frame(LoadConnection&, const PacketHeader& header) = 0;  // came whole
  virtual void on_control(LoadConnection&, WsOpcode opcode, std::string_view payload) = 0;
  virtual void on_error(LoadConnection&, std::string_view what) = 0;   // unusable from here

 protected:
  ~LoadObserver() = default;
};

class LoadConnection {
 public:
  // `handshake`: the answer to an upgrade is awaited, `requested`: that to the GET of a stream.
  enum class State : uint8_t {
    waiting,
    connecting,
    asking,
    handshake,
    requested,
    open,
    joined,
    dead
  };

  LoadRecord record;
  size_t number = 0;  // in its thread
  State state = State::waiting;
  bool is_source = false;
  bool is_stopped = false;  // a source that sends no more and does not come back
  bool asks = false;      // the HTTP request is still to be made
  bool is_lost = false;   // it was lost and has not heard anything since
  bool is_fresh = true;   // no frame came over this connection yet
  LoadStream stream;
  uint16_t stream_number = 0;
  uint32_t last_sequence = 0;
  uint64_t last_timestamp = 0;  // of the last frame
  int64_t live_from_us = 0;     // it came back at this time of the server
  int64_t started_ns = 0;       // when it first connected
  int64_t attempted_ns = 0;     // when it last did
  int64_t heard_ns = 0;         // when the last frame came
  int64_t bytes_per_s = -1;     // that are read at most; below 0: no limit
  int64_t allowance = 0;        // bytes that may be read now, of a limited one
  std::list<int64_t> asked_ns;  // when texts were sent by command that are not answered yet
  std::string token;            // what an HTTP request for it was answered with
  std::string unsent;           // what the socket did not take at once

  bool alive() const noexcept { return state != State::dead && state != State::waiting; }
  bool is_entering() const noexcept { return alive() && state != State::joined; }
  bool sends() const noexcept { return is_source && state == State::joined && !is_stopped; }
  // Whether it may come back once it is lost.
  bool returns() const noexcept { return bytes_per_s < 0 && !is_stopped; }

  // Ready for another socket.
  void restart() {
    state = State::connecting;
    is_fresh = true;
    is_text_ = is_frame_ = is_stream_ = is_seeking_ = has_candidate_ = false;
    have_ = 0;
    left_ = 0;
    sought_ = 0;
    text_.clear();
    unsent.clear();
  }

  // Takes `n` bytes as they were received. Of a binary message 32 bytes must be seen together, of a
  // control frame all; they are gathered in `head_` only when a read cut them apart.
  void feed(const uint8_t* data, size_t n, LoadObserver& observer) {
    while (n > 0 && state != State::dead) {
      if (state == State::asking) {
        take_answer(data, n, observer);
        return;
      }
      if (state == State::handshake || state == State::requested) {
        if (!take_handshake(data, n, observer)) return;
      } else if (left_ > 0) {
        const size_t skip = std::min<uint64_t>(left_, n);
        if (is_text_) keep_text(data, skip);
        left_ -= skip;
        data += skip;
        n -= skip;
        if (left_ == 0) finish(observer);
      } else if (is_seeking_) {
        seek(data, n, observer);
      } else {
        take_head(data, n, observer);
      }
    }
  }

 private:
  static constexpr size_t kMaxHead = 10 + 127;
  static constexpr size_t kMaxText = 4096;
  static constexpr uint64_t kMaxStreamFrame = 2 << 20;  // that a stream is searched for
  static constexpr uint64_t kMaxSought = 3 * kMaxStreamFrame;

  static size_t header_bytes(const uint8_t* p) noexcept {
    const unsigned code = p[1] & 127;
    return code < 126 ? 2 : code == 126 ? 4 : 10;
  }

  // Bytes needed before the message that starts at `p` can be judged, as far as `have` of them tell.
  static size_t needed(const uint8_t* p, size_t have) noexcept {
    if (have < 2) return 2;
    const size_t header = header_bytes(p);
    if (have < header) return header;
    const unsigned opcode = p[0] & 15;
    if (opcode >= 8) return header + (p[1] & 127);
    return opcode == 2 ? header + std::min<uint64_t>(kHeaderBytes, length(p)) : header;
  }
  static uint64_t length(const uint8_t* p) noexcept {
    const unsigned code = p[1] & 127;
    if (code < 126) return code;
    uint64_t value = 0;
    for (unsigned i = 0, width = code == 126 ? 2 : 8; i < width; ++i) value = value << 8 | p[2 + i];
    return value;
  }

  void take_head(const uint8_t*& data, size_t& n, LoadObserver& observer) {
    if (have_ == 0) {
      if (const size_t want = needed(data, n); want <= n) {  // nearly always: all in one read
        const uint8_t* head = data;
        data += want;
        n -= want;
        return take_message(head, want, observer);
      }
    }
    while (n > 0) {
      head_[have_++] = *data++;
      --n;
      if (have_ == needed(head_, have_))
        return take_message(head_, std::exchange(have_, uint8_t{0}), observer);
    }
  }

  // Whether a frame may begin with these bytes, as far as they go; there is at least one.
  static bool may_be_frame(const uint8_t* p, size_t have) noexcept {
    static constexpr uint8_t kWhole = 0x80 | static_cast<uint8_t>(WsOpcode::binary);
    if (p[0] != kWhole || (have >= 2 && (p[1] & 0x80) != 0)) return false;
    if (have < 2 || have < header_bytes(p)) return true;
    const uint8_t* const frame = p + header_bytes(p);
    const size_t got = have - header_bytes(p);
    return length(p) >= kHeaderBytes && length(p) <= kMaxStreamFrame &&
           (got < 1 || frame[0] == kPacketVersion) && (got < 2 || frame[1] == kKindFrame);
  }

  // Goes on in a stream that began anywhere, until one frame follows another: what looks like a
  // frame is a candidate, and with the next one right behind it both are. The second is the first
  // that counts.
  void seek(const uint8_t*& data, size_t& n, LoadObserver& observer) {
    while (n > 0) {
      if (++sought_ > kMaxSought)
        return observer.on_error(*this, "a stream in which no frame follows another");
      head_[have_++] = *data++;
      --n;
      while (have_ > 0 && !may_be_frame(head_, have_)) {
        has_candidate_ = false;  // nothing follows it
        std::memmove(head_, head_ + 1, --have_);
      }
      if (have_ == 0 || have_ < needed(head_, have_)) continue;
      const size_t taken = std::exchange(have_, uint8_t{0});
      const PacketHeader header = read_packet_header(head_ + taken - kHeaderBytes);
      if (has_candidate_ && header.first == frame_.first &&
          header.sequence == frame_.sequence + 1) {
        is_seeking_ = false;
        return take_message(head_, taken, observer);
      }
      has_candidate_ = true;
      frame_ = header;
      left_ = length(head_) - kHeaderBytes;
      sought_ += left_;
      if (left_ > 0) return;
    }
  }

  // The message at hand has come whole.
  void finish(LoadObserver& observer) {
    if (is_text_) return finish_text(observer);
    if (std::exchange(is_frame_, false)) observer.on_frame(*this, frame_);
  }

  void take_message(const uint8_t* head, size_t taken, LoadObserver& observer) {
    const size_t header = header_bytes(head);
    if ((head[0] & 0xF0) != 0x80 || (head[1] & 0x80) != 0)
      return observer.on_error(*this, "a fragmented, extended or masked frame from the server");
    const auto opcode = static_cast<WsOpcode>(head[0] & 15);
    if (is_stream_ && opcode != WsOpcode::binary)
      return observer.on_error(*this, "a stream with something else between its frames");
    left_ = length(head) - (taken - header);
    switch (opcode) {
      case WsOpcode::binary:
        is_text_ = false;
        if (const uint8_t* const frame = head + header;
            taken - header == kHeaderBytes && frame[1] == kKindFrame) {
          is_frame_ = true;
          frame_ = read_packet_header(frame);
          if (left_ == 0) finish(observer);
        }
        break;
      case WsOpcode::text:
        is_text_ = true;
        if (left_ == 0) finish_text(observer);
        break;
      case WsOpcode::close:
      case WsOpcode::ping:
      case WsOpcode::pong:
        is_text_ = false;
        if (header != 2)
          return observer.on_error(*this, "a control frame longer than 125 bytes");
        observer.on_control(*this, opcode,
                            {reinterpret_cast<const char*>(head + header), taken - header});
        break;
      default:
        observer.on_error(*this, "a frame with an unknown opcode");
    }
  }

  // Whatever follows the answer is not looked at: nothing does.
  void take_answer(const uint8_t* data, size_t n, LoadObserver& observer) {
    text_.append(reinterpret_cast<const char*>(data), n);
    const size_t end = text_.find("\r\n\r\n");
    if (end == std::string::npos) {
      if (text_.size() > kMaxText) observer.on_error(*this, "an endless answer over HTTP");
      return;
    }
    const std::string_view length =
        head_field(std::string_view(text_).substr(0, end), "content-length");
    size_t size = 0;
    const auto [rest, error] = std::from_chars(length.data(), length.data() + length.size(), size);
    if (error != std::errc{} || rest != length.data() + length.size() || size > kMaxText)
      size = 0;  // a body that is not waited for
    if (text_.size() < end + 4 + size) return;
    const std::string answer = std::exchange(text_, {});
    const std::string_view body = std::string_view(answer).substr(end + 4, size);
    if (!answer.starts_with("HTTP/1.1 200"))
      return observer.on_error(*this, refusal(answer, body));
    if (size == 0)
      return observer.on_error(*this, "an answer over HTTP that is too long or has no length");
    observer.on_answer(*this, body);
  }

  // The status line, and what a problem document says about it.
  static std::string refusal(std::string_view answer, std::string_view body) {
    std::string text(answer.substr(0, answer.find("\r\n")));
    static constexpr std::string_view kCode = R"("code":")";
    if (const size_t at = body.find(kCode); at != body.npos) {
      const std::string_view rest = body.substr(at + kCode.size());
      text.append(": ").append(rest.substr(0, std::min<size_t>(rest.find('"'), 64)));
    }
    return text;
  }

  // False while the answer is not complete.
  bool take_handshake(const uint8_t*& data, size_t& n, LoadObserver& observer) {
    const size_t before = text_.size();
    text_.append(reinterpret_cast<const char*>(data), n);
    const size_t end = text_.find("\r\n\r\n");
    if (std::min(end, text_.size()) > kMaxText) {
      observer.on_error(*this, "an endless answer to the handshake");
      return false;
    }
    if (end == std::string::npos) return false;
    const std::string answer = std::exchange(text_, {});
    const std::string_view head = std::string_view(answer).substr(0, end);
    is_stream_ = is_seeking_ = state == State::requested;
    if (is_stream_ ? !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200")
                   : !head.starts_with("HTTP/1.1 101")) {
      observer.on_error(*this, refusal(answer, std::string_view(answer).substr(end + 4)));
      return false;
    }
    if (!is_stream_ && head.find(kLoadAccept) == head.npos) {
      observer.on_error(*this, "a wrong Sec-WebSocket-Accept");
      return false;
    }
    if (is_stream_ && !head_field(head, "transfer-encoding").empty()) {
      observer.on_error(*this, "a stream in pieces (Transfer-Encoding)");
      return false;
    }
    const size_t used = end + 4 - before;
    data += used;
    n -= used;
    state = State::open;
    observer.on_open(*this);
    return true;
  }

  void keep_text(const uint8_t* data, size_t n) {
    text_.append(reinterpret_cast<const char*>(data), std::min(n, kMaxText - text_.size()));
  }
  void finish_text(LoadObserver& observer) {
    is_text_ = false;
    const std::string text = std::exchange(text_, {});  // gives the memory back
    observer.on_text(*this, text);
  }

  bool is_text_ = false;
  bool is_frame_ = false;       // the message at hand is `frame_`
  bool is_stream_ = false;      // frames alone are to come
  bool is_seeking_ = false;     // where in a stream frames begin is not known
  bool has_candidate_ = false;  // `frame_` may have been one
  uint8_t have_ = 0;            // bytes in head_
  uint64_t left_ = 0;           // payload still to come of the message at hand
  uint64_t sought_ = 0;         // bytes of a stream that went by
  PacketHeader frame_{};
  std::string text_;  // of the answer or of the text message at hand
  uint8_t head_[kMaxHead]{};
};

}  // namespace relaycore
