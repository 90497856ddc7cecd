// The WebSocket parser, cut and paused at will, against the slow decoder over the whole stream.
//
// Input: max_text / 4 u8, max_binary / 16 u8, most bytes a piece u8 (0: all at once), one in how
// many messages pauses u7 (0: none), whether binary messages are refused u1, then the stream.
#include <cstdlib>

#include "ws_reference.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const relaycore::WsLimits limits{data[0] * size_t{4}, data[1] * size_t{16},
                                   static_cast<uint16_t>(data[3] & 0x80 ? 4400 : 0)};
  const size_t most = data[2];
  const unsigned pause_one_in = data[3] & 0x7F;
  const std::string_view wire(reinterpret_cast<const char*>(data) + 4, size - 4);

  uint32_t state = static_cast<uint32_t>(size) * 2654435761u + data[2] * 256u + data[3];
  const auto random = [&state] { return (state = state * 1664525u + 1013904223u) >> 16; };

  relaycore::WsParser parser;
  reference::Recorder recorder;
  recorder.go_on = [&] { return pause_one_in == 0 || random() % pause_one_in != 0; };
  for (std::string_view rest = wire; !rest.empty();) {
    const size_t n = most == 0 ? rest.size() : std::min<size_t>(rest.size(), 1 + random() % most);
    if (!reference::feed_piece(parser, recorder, rest.substr(0, n), limits)) std::abort();
    rest.remove_prefix(n);
  }
  if (recorder.outcome != reference::decode(wire, limits)) std::abort();
  return 0;
}
