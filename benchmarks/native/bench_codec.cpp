// Times the wire codec. Reads lines "OPERATION REPEATS", or "floor:OPERATION REPEATS" for a memcpy
// of as many bytes, and answers each with the nanoseconds it took and the bytes of one repeat.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "relaycore/packet.h"
#include "relaycore/ws_codec.h"

using namespace relaycore;

namespace {

struct Operation {
  size_t bytes;                        // of one repeat
  std::function<void(size_t)> repeat;  // does it so many times
};

// Keeps the compiler from dropping work whose result nobody reads.
void keep(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

struct Discard {
  bool on_text(const uint8_t* p, size_t) { keep(p); return true; }
  bool on_binary(const uint8_t* p, size_t) { keep(p); return true; }
  bool on_ping(const uint8_t* p, size_t) { keep(p); return true; }
  bool on_pong(const uint8_t* p, size_t) { keep(p); return true; }
  bool on_close(uint16_t, const uint8_t* p, size_t) { keep(p); return true; }
};

// One client frame with a mask key of zeros: unmasking does all its work and leaves the bytes as
// they are, so that the same buffer can be parsed again and again.
std::vector<uint8_t> client_frame(WsOpcode opcode, size_t payload) {
  std::vector<uint8_t> out(kWsMaxServerHeader);
  out.resize(write_ws_header(out.data(), opcode, payload));
  out[1] |= 0x80;
  out.insert(out.end(), 4, 0);
  out.insert(out.end(), payload, 'x');
  return out;
}

Operation copying(size_t bytes) {
  return {bytes, [from = std::vector<uint8_t>(bytes, 1), to = std::vector<uint8_t>(bytes)](size_t n) mutable {
            while (n-- > 0) {
              keep(from.data());
              std::memcpy(to.data(), from.data(), from.size());
              keep(to.data());
            }
          }};
}

Operation parsing(WsOpcode opcode, size_t payload, size_t piece) {
  return {payload, [wire = client_frame(opcode, payload), piece](size_t n) mutable {
            const WsLimits limits{1 << 20, 1 << 20};
            WsParser parser;
            Discard handler;
            while (n-- > 0)
              for (size_t at = 0; at < wire.size(); at += piece)
                parser.feed(wire.data() + at, std::min(piece, wire.size() - at), limits, handler);
          }};
}

Operation unmasking(size_t bytes) {
  return {bytes, [data = std::vector<uint8_t>(bytes)](size_t n) mutable {
            uint8_t key[4] = {1, 2, 3, 4};
            while (n-- > 0) {
              ws_unmask(data.data(), data.size(), key);
              keep(data.data());
            }
          }};
}

Operation checking_text(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return {text.size(), [text](size_t n) {
            volatile bool sink = true;
            while (n-- > 0) {
              keep(text.data());
              sink = is_utf8(reinterpret_cast<const uint8_t*>(text.data()), text.size());
            }
            (void)sink;
          }};
}

Operation parsing_packet() {
  std::vector<uint8_t> packet(kHeaderBytes + 1920);
  write_packet_header(packet.data(), {kPacketVersion, kKindSource, 0, 0, 0, 1, 7, 960, 1000, 0});
  return {kHeaderBytes, [packet](size_t n) {
            const SourceFormat format{Encoding::s16le, 16, 48000};
            SourcePacket out{};
            while (n-- > 0) {
              keep(packet.data());
              if (parse_source_packet(packet.data(), packet.size(), format, out) != PacketError::ok) std::abort();
              keep(&out);
            }
          }};
}

Operation writing_frame_headers() {
  return {kHeaderBytes + 4, [](size_t n) {
            uint8_t out[kWsMaxServerHeader + kHeaderBytes];
            while (n-- > 0) {
              const size_t at = write_ws_header(out, WsOpcode::binary, kHeaderBytes + 3840);
              write_frame_header(out + at, Encoding::s16le, 0, 1, 2, n, 960, n * 960, n);
              keep(out);
            }
          }};
}

}  // namespace

int main() {
  std::map<std::string, Operation> operations{
      {"packet_parse", parsing_packet()},
      {"frame_header_write", writing_frame_headers()},
      {"unmask_3872", unmasking(3872)},
      {"unmask_65536", unmasking(65536)},
      {"utf8_ascii_4096", checking_text("plain text, as JSON mostly is. ", 4096)},
      {"utf8_greek_4096", checking_text("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5 ", 4096)},
      {"ws_text_60", parsing(WsOpcode::text, 60, SIZE_MAX / 2)},
      {"ws_binary_1952", parsing(WsOpcode::binary, 1952, SIZE_MAX / 2)},
      {"ws_binary_30752", parsing(WsOpcode::binary, 30752, SIZE_MAX / 2)},
      {"ws_binary_30752_in_pieces", parsing(WsOpcode::binary, 30752, 1448)},
  };
  std::map<size_t, Operation> floors;
  for (const auto& [name, operation] : operations) floors.emplace(operation.bytes, copying(operation.bytes));

  std::string name;
  size_t repeats = 0;
  while (std::cin >> name >> repeats) {
    const bool floor = name.starts_with("floor:");
    const auto found = operations.find(floor ? name.substr(6) : name);
    if (found == operations.end()) return 2;
    Operation& operation = floor ? floors.at(found->second.bytes) : found->second;
    const auto start = std::chrono::steady_clock::now();
    operation.repeat(repeats);
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - start;
    std::cout << took.count() << ' ' << operation.bytes << std::endl;
  }
}
