// One listener of the load client: an HTTP request before it, the handshake, and an incremental
// parser of messages that looks at headers alone. Payload is counted and forgotten.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "bench.h"
#include "stream.h"

namespace bench {

// What a connection tells its owner. One object for all connections; calls come from `feed`.
class Connection;
class Observer {
 public:
  virtual void on_answer(Connection&, std::string_view body) = 0;          // of HTTP, with a 200
  virtual void on_open(Connection&) = 0;                                   // the 101 came
  virtual void on_text(Connection&, std::string_view text) = 0;            // its first 4 KiB
  virtual void on_frame(Connection&, uint32_t sequence, uint64_t timestamp, uint64_t time_us) = 0;
  virtual void on_control(Connection&, unsigned opcode, const uint8_t* payload, size_t n) = 0;
  virtual void on_error(Connection&, std::string_view what) = 0;           // unusable from here

 protected:
  ~Observer() = default;
};

class Connection {
 public:
  enum class State : uint8_t { idle, connecting, asking, handshake, open, joined, dead };

  State state = State::idle;
  bool has_sequence = false;
  Stream stream;
  uint32_t last_sequence = 0;
  uint32_t frames = 0;         // since the interval began
  uint64_t last_timestamp = 0; // of the last frame
  int64_t started_ns = 0;      // when it first connected
  int64_t heard_ns = 0;        // when the last frame came
  std::string token;           // what an HTTP request for it was answered with
  bool asks = false;           // the HTTP request is still to be made
  bool is_lost = false;        // it was lost and has not heard anything since
  bool is_back = false;        // it was lost and hears again

  // Ready for another socket.
  void restart() {
    state = State::connecting;
    has_sequence = is_text_ = false;
    have_ = 0;
    left_ = 0;
    text_.clear();
  }

  // Takes `n` bytes as they were received. Of a binary message 32 bytes must be seen together, of a
  // control frame all; they are gathered in `head_` only when a read cut them apart.
  void feed(const uint8_t* data, size_t n, Observer& observer) {
    while (n > 0 && state != State::dead) {
      if (state == State::asking) {
        if (!take_answer(data, n, observer)) return;
      } else if (state == State::handshake) {
        if (!take_handshake(data, n, observer)) return;
      } else if (left_ > 0) {
        const size_t skip = std::min<uint64_t>(left_, n);
        if (is_text_) keep_text(data, skip);
        left_ -= skip;
        data += skip;
        n -= skip;
        if (left_ == 0 && is_text_) finish_text(observer);
      } else {
        take_head(data, n, observer);
      }
    }
  }

  bool alive() const { return state != State::dead && state != State::idle; }

 private:
  static constexpr size_t kMaxHead = 10 + 127;
  static constexpr size_t kMaxText = 4096;

  // Bytes needed before the message that starts at `p` can be judged, as far as `have` of them tell.
  static size_t needed(const uint8_t* p, size_t have) {
    if (have < 2) return 2;
    const unsigned code = p[1] & 127;
    const size_t header = code < 126 ? 2 : code == 126 ? 4 : 10;
    if (have < header) return header;
    const unsigned opcode = p[0] & 15;
    if (opcode >= 8) return header + code;
    return opcode == 2 ? header + std::min<uint64_t>(kFrameHeader, length(p)) : header;
  }
  static uint64_t length(const uint8_t* p) {
    const unsigned code = p[1] & 127;
    if (code < 126) return code;
    uint64_t value = 0;
    for (unsigned i = 0, width = code == 126 ? 2 : 8; i < width; ++i) value = value << 8 | p[2 + i];
    return value;
  }

  void take_head(const uint8_t*& data, size_t& n, Observer& observer) {
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

  void take_message(const uint8_t* head, size_t taken, Observer& observer) {
    const unsigned opcode = head[0] & 15;
    const unsigned code = head[1] & 127;
    const size_t header = code < 126 ? 2 : code == 126 ? 4 : 10;
    if ((head[0] & 0xF0) != 0x80 || (head[1] & 0x80) != 0)
      return fail("a fragmented, extended or masked frame from the server", observer);
    left_ = length(head) - (taken - header);
    is_text_ = opcode == 1;
    if (opcode == 2) {
      const uint8_t* frame = head + header;
      if (taken - header == kFrameHeader && frame[1] == kKindFrame)
        observer.on_frame(*this, load_le<uint32_t>(frame + 8), load_le<uint64_t>(frame + 16),
                          load_le<uint64_t>(frame + 24));
    } else if (opcode >= 8) {
      if (code > 125) return fail("a control frame longer than 125 bytes", observer);
      observer.on_control(*this, opcode, head + header, code);
    } else if (opcode != 1) {
      fail("a frame with an unknown opcode", observer);
    } else if (left_ == 0) {
      finish_text(observer);
    }
  }

  // False while the answer is not complete. Whatever follows it is not looked at: nothing does.
  bool take_answer(const uint8_t* data, size_t n, Observer& observer) {
    static constexpr std::string_view kLength = "\r\nContent-Length: ";
    text_.append(reinterpret_cast<const char*>(data), n);
    const size_t end = text_.find("\r\n\r\n");
    const size_t length = text_.find(kLength);
    if (end == std::string::npos || length > end) {
      if (text_.size() > kMaxText || end != std::string::npos)
        fail("an answer over HTTP that is endless or has no length", observer);
      return false;
    }
    const auto size = static_cast<size_t>(std::atoll(text_.data() + length + kLength.size()));
    if (text_.size() < end + 4 + size) return false;
    const std::string answer = std::exchange(text_, {});
    if (answer.starts_with("HTTP/1.1 200"))
      observer.on_answer(*this, std::string_view(answer).substr(end + 4, size));
    else
      fail(answer.substr(0, answer.find("\r\n")), observer);
    return false;
  }

  // False while the answer is not complete.
  bool take_handshake(const uint8_t*& data, size_t& n, Observer& observer) {
    const size_t before = text_.size();
    text_.append(reinterpret_cast<const char*>(data), n);
    const size_t end = text_.find("\r\n\r\n");
    if (end == std::string::npos) {
      if (text_.size() > kMaxText) fail("an endless answer to the handshake", observer);
      return false;
    }
    const std::string answer = std::exchange(text_, {});
    if (!answer.starts_with("HTTP/1.1 101")) {
      fail(answer.substr(0, answer.find("\r\n")), observer);
      return false;
    }
    if (answer.find(kAccept) == std::string::npos || answer.find(kAccept) > end) {
      fail("a wrong Sec-WebSocket-Accept", observer);
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
  void finish_text(Observer& observer) {
    is_text_ = false;
    const std::string text = std::exchange(text_, {});  // gives the memory back
    observer.on_text(*this, text);
  }
  void fail(std::string_view what, Observer& observer) { observer.on_error(*this, what); }

  bool is_text_ = false;
  uint8_t have_ = 0;         // bytes in head_
  uint64_t left_ = 0;        // payload still to come of the message at hand
  std::string text_;         // of the handshake or of the text message at hand
  uint8_t head_[kMaxHead]{};
};

}  // namespace bench
