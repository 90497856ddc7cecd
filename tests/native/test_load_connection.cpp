// What a load client makes of a server's bytes: the same wherever they are cut, and never more than
// it has room for, whatever they are.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "load_connection.h"

namespace {

using namespace relaycore;

// Keeps what it is told as text.
struct Told final : LoadObserver {
  std::vector<std::string> lines;

  void on_answer(LoadConnection&, std::string_view body) override { say("answer", body); }
  void on_open(LoadConnection&) override { say("open", {}); }
  void on_text(LoadConnection&, std::string_view text) override { say("text", text); }
  void on_frame(LoadConnection&, const PacketHeader& header) override {
    say("frame", std::to_string(header.sequence) + " " + std::to_string(header.time_us));
  }
  void on_control(LoadConnection&, WsOpcode opcode, std::string_view payload) override {
    say(std::to_string(static_cast<int>(opcode)), payload);
  }
  void on_error(LoadConnection& c, std::string_view what) override {
    say("error", what);
    c.state = LoadConnection::State::dead;  // as its owner does
  }

 private:
  void say(std::string_view kind, std::string_view what) {
    lines.push_back(std::string(kind).append(" ").append(what));
  }
};

std::string message(WsOpcode opcode, const std::string& payload) {
  uint8_t header[kWsMaxServerHeader];
  const size_t n = write_ws_header(header, opcode, payload.size());
  return std::string(reinterpret_cast<char*>(header), n) + payload;
}

std::string frame(uint32_t sequence, size_t payload) {
  uint8_t header[kHeaderBytes];
  write_frame_header(header, Encoding::s16le, 0, 1, 2, sequence, 1, 0, 1'000'000 + sequence);
  return message(WsOpcode::binary, std::string(reinterpret_cast<char*>(header), sizeof header) +
                                       std::string(payload, 'x'));
}

const std::string kSwitching =
    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + std::string(kLoadAccept) +
    "\r\n\r\n";

std::vector<std::string> tell(const std::string& bytes, size_t piece,
                              LoadConnection::State state = LoadConnection::State::handshake) {
  LoadConnection c;
  c.state = state;
  Told told;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    // A copy of its own, so that a sanitizer sees a read beyond it.
    const std::string cut = bytes.substr(at, piece);
    const std::vector<uint8_t> part(cut.begin(), cut.end());
    c.feed(part.data(), part.size(), told);
  }
  return told.lines;
}

TEST(messages_are_the_same_wherever_they_are_cut) {
  const std::string bytes = kSwitching + message(WsOpcode::text, "{}") + frame(7, 0) +
                            message(WsOpcode::ping, "") + frame(8, 70'000) +
                            message(WsOpcode::text, "") + message(WsOpcode::binary, "short") +
                            message(WsOpcode::ping, std::string(125, 'p')) + frame(9, 200) +
                            message(WsOpcode::close, "\x03\xE9" "bye");
  const std::vector<std::string> whole = tell(bytes, bytes.size());
  const std::vector<std::string> expected{
      "open ", "text {}", "frame 7 1000007", "9 ", "frame 8 1000008", "text ",
      "9 " + std::string(125, 'p'), "frame 9 1000009", "8 \x03\xE9" "bye"};
  CHECK(whole == expected);
  for (size_t piece = 1; piece < 200; ++piece) CHECK(tell(bytes, piece) == whole);
}

TEST(a_long_text_is_kept_to_its_first_4096_bytes) {
  for (const size_t piece : {1u, 100u, 5000u, 20'000u}) {
    const auto lines =
        tell(kSwitching + message(WsOpcode::text, std::string(10'000, 'a')) + frame(1, 9), piece);
    CHECK_EQ(lines.size(), 3u);
    CHECK_EQ(lines[1].size(), 5u + 4096);
    CHECK(lines[2] == "frame 1 1000001");
  }
}

TEST(what_no_server_may_send_ends_the_connection) {
  const std::string fragment = "\x02\x05" "hello", masked("\x82\x85\0\0\0\0hello", 11);
  const std::string control("\x89\x7E\x01\x00", 4), opcode("\x83\x00", 2);
  for (const std::string& bytes : {fragment, masked, control + std::string(256, 'x'), opcode}) {
    const auto lines = tell(kSwitching + bytes + frame(1, 1), 3);
    CHECK_EQ(lines.size(), 2u);
    CHECK(lines.back().starts_with("error "));
  }
}

TEST(a_handshake_is_refused_with_its_reason) {
  const auto refused = [](const std::string& bytes) { return tell(bytes, 1).back(); };
  CHECK(refused("HTTP/1.1 429 Too Many\r\n\r\n") == "error HTTP/1.1 429 Too Many");
  CHECK(refused("HTTP/1.1 101 Yes\r\n\r\n") == "error a wrong Sec-WebSocket-Accept");
  CHECK(refused(std::string(5000, 'x')) == "error an endless answer to the handshake");
}

const std::string kStreaming = "HTTP/1.0 200 OK\r\nServer: any\r\n\r\n";

// What is told of an endless body that begins like this.
std::vector<std::string> hear(const std::string& body, size_t piece) {
  return tell(kStreaming + body, piece, LoadConnection::State::requested);
}

TEST(a_stream_is_heard_from_the_second_of_two_frames_on_wherever_it_begins) {
  for (const size_t payload : {0u, 50u, 1000u, 70'000u}) {
    std::string body;
    for (uint32_t sequence = 0xFFFF'FFFD; sequence != 3; ++sequence) body += frame(sequence, payload);
    const size_t size = body.size() / 6;
    for (size_t begin = 0; begin < 2 * size; begin += 1 + size / 41) {
      const size_t first = (begin + size - 1) / size + 1;
      for (const size_t piece : {size_t{1} + payload / 40, size_t{36}, size, body.size()}) {
        const auto lines = hear(body.substr(begin), piece);
        CHECK_EQ(lines.size(), 1 + 6 - first);
        CHECK(lines[0] == "open ");
        const uint32_t sequence = 0xFFFF'FFFD + static_cast<uint32_t>(first);
        CHECK(lines[1].starts_with("frame " + std::to_string(sequence) + " "));
      }
    }
  }
}

TEST(what_looks_like_a_frame_amid_another_is_none) {
  // The payload of each holds the beginning of a frame that never was.
  const auto like = [](uint32_t sequence) {
    uint8_t header[kHeaderBytes];
    write_frame_header(header, Encoding::s16le, 0, 1, 2, sequence, 1, 0, 1'000'000 + sequence);
    return message(WsOpcode::binary, std::string(reinterpret_cast<char*>(header), sizeof header) +
                                         "xx" + frame(sequence + 100, 20) + "xxxx");
  };
  std::string body;
  for (uint32_t sequence = 1; sequence < 7; ++sequence) body += like(sequence);
  for (size_t begin = 0; begin < body.size() / 3; ++begin) {
    const auto lines = hear(body.substr(begin), 1 + begin % 50);
    CHECK(lines.size() >= 3);
    CHECK(lines.back() == "frame 6 1000006");
    for (const std::string& line : lines) CHECK(line.size() < sizeof "frame 6 1000006");
  }
}

TEST(a_frame_counts_when_its_last_byte_has_come) {
  const std::string bytes = kSwitching + frame(1, 500);
  CHECK_EQ(tell(bytes.substr(0, bytes.size() - 1), 100).size(), 1u);
  CHECK_EQ(tell(bytes, 100).size(), 2u);
}

TEST(what_is_no_stream_of_frames_is_given_up) {
  const auto refused = [](const std::string& bytes, size_t piece) {
    return tell(bytes, piece, LoadConnection::State::requested).back();
  };
  CHECK(refused("HTTP/1.0 404 File Not Found\r\n\r\n", 1) == "error HTTP/1.0 404 File Not Found");
  CHECK(refused(kSwitching, 7).starts_with("error HTTP/1.1 101"));
  CHECK(refused("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 9).starts_with("error "));
  const std::string endless = "HTTP/1.1 200 OK\r\nX: " + std::string(5000, 'x');
  for (const size_t piece : {100u, 10'000u}) {
    CHECK(refused(endless, piece) == "error an endless answer to the handshake");
    CHECK(refused(endless + "\r\n\r\n", piece) == "error an endless answer to the handshake");
  }
  // Nothing but single frames: each is longer or shorter than it says.
  std::string body;
  while (body.size() < (7 << 20)) body += frame(1, 100'000).substr(0, 90'000) + std::string(30'000, '\0');
  for (const std::string& bytes : {body, std::string(7 << 20, '\x82')})
    CHECK(hear(bytes, 65'536).back() == "error a stream in which no frame follows another");
  const std::string frames = frame(1, 10) + frame(2, 10);
  CHECK(hear(frames + message(WsOpcode::ping, ""), 8).back().starts_with("error "));
  CHECK(hear(frames + message(WsOpcode::text, "{}"), 8).back().starts_with("error "));
}

TEST(an_answer_over_http_is_taken_whole_or_refused) {
  const auto answered = [](const std::string& bytes) {
    return tell(bytes, 1, LoadConnection::State::asking).back();
  };
  const std::string body = R"({"roomToken":"t"})";
  const std::string length = "\r\nContent-Length: " + std::to_string(body.size());
  CHECK(answered("HTTP/1.1 200 OK" + length + "\r\n\r\n" + body) == "answer " + body);
  // As proxies may write it.
  for (const char* field : {"content-length:17", "CONTENT-LENGTH: \t17 ", "A: b\r\nContent-length:  17"})
    CHECK(answered("HTTP/1.1 200 OK\r\n" + std::string(field) + "\r\n\r\n" + body) ==
          "answer " + body);
  CHECK(answered("HTTP/1.1 401 No" + length + "\r\n\r\n" R"({"code":"wrong" })") ==
        "error HTTP/1.1 401 No: wrong");
  for (const char* bad :
       {"", "\r\nContent-Length: -5", "\r\nContent-Length: 99999999999", "\r\nContent-Length: ",
        "\r\nContent-Length: 17x", "\r\nX-Content-Length: 17", "\r\nContent-Length 17",
        "\r\nContent-Length: 99999999999999999999999"})
    CHECK(answered("HTTP/1.1 200 OK" + std::string(bad) + "\r\n\r\n" + body) ==
          "error an answer over HTTP that is too long or has no length");
  // The status of a refusal is told whatever its body is: a proxy's may be in pieces, empty or long.
  for (const char* field : {"Transfer-Encoding: chunked", "Content-Length: 0",
                            "Content-Length: 99999", "Content-Length: 17x", "Server: any"})
    CHECK(answered("HTTP/1.1 502 Bad Gateway\r\n" + std::string(field) + "\r\n\r\n" + body) ==
          "error HTTP/1.1 502 Bad Gateway");
}

TEST(noise_never_does_harm) {
  std::mt19937 chance(1);
  for (int round = 0; round < 20'000; ++round) {
    const std::string heads[] = {kSwitching, kStreaming, ""};
    std::string bytes = heads[round % 3];
    for (size_t n = chance() % 300; n > 0; --n) {
      // Often what a header may be made of.
      static constexpr char kLikely[] = "\x81\x82\x88\x89\x8A\x00\x01\x02\x7D\x7E\x7F\xFF";
      bytes += chance() % 2 == 0 ? kLikely[chance() % (sizeof kLikely - 1)]
                                 : static_cast<char>(chance());
    }
    static constexpr LoadConnection::State kStates[] = {LoadConnection::State::handshake,
                                                        LoadConnection::State::requested,
                                                        LoadConnection::State::asking,
                                                        LoadConnection::State::open};
    const size_t piece = 1 + chance() % 64;
    for (const LoadConnection::State state : kStates) tell(bytes, piece, state);
  }
}

}  // namespace
