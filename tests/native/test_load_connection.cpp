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
    CHECK(answered("HTTP/1.1 200 OK" + std::string(bad) + "\r\n\r\n" + body).starts_with("error "));
}

TEST(noise_never_does_harm) {
  std::mt19937 chance(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = round % 2 == 0 ? kSwitching : "";
    for (size_t n = chance() % 300; n > 0; --n) {
      // Often what a header may be made of.
      static constexpr char kLikely[] = "\x81\x82\x88\x89\x8A\x00\x7D\x7E\x7F\xFF";
      bytes += chance() % 2 == 0 ? kLikely[chance() % (sizeof kLikely - 1)]
                                 : static_cast<char>(chance());
    }
    static constexpr LoadConnection::State kStates[] = {LoadConnection::State::handshake,
                                                        LoadConnection::State::asking,
                                                        LoadConnection::State::open};
    const size_t piece = 1 + chance() % 64;
    for (const LoadConnection::State state : kStates) tell(bytes, piece, state);
  }
}

}  // namespace
