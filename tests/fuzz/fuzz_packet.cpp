// Source packets against the rules of docs/protocol.md written down once more, the long way round.
//
// Input: encoding u8, channels u8, sample_rate u32 of the registered format, then the packet.
#include <cstdlib>
#include <memory>

#include "relaycore/packet.h"

using namespace relaycore;

static void require(bool holds) {
  if (!holds) std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 6) return 0;
  const SourceFormat format{static_cast<Encoding>(data[0]), data[1], load_le32(data + 2)};
  const size_t n = size - 6;
  const auto packet = std::make_unique<uint8_t[]>(n);  // its end is the sanitizer's
  for (size_t i = 0; i < n; ++i) packet[i] = data[6 + i];

  SourcePacket out{};
  const PacketError error = parse_source_packet(packet.get(), n, format, out);
  require(describe(error)[0] != '\0');
  require((close_code(error) == 0) == (error == PacketError::ok));
  require((n < kHeaderBytes) == (error == PacketError::truncated));
  if (n < kHeaderBytes) return 0;

  using Wide = unsigned __int128;
  const PacketHeader h = read_packet_header(packet.get());
  const Wide bytes = h.encoding == 0 ? 2 : 4;
  const bool well_formed = h.version == 1 && h.kind == 1 && h.flags == 0 && h.encoding <= 1 &&
                           h.encoding == data[0] && h.channels >= 1 &&
                           Wide{h.first} + h.channels <= format.channels && h.sample_count >= 1 &&
                           h.sample_count <= format.sample_rate &&
                           Wide{h.sample_count} * h.channels * bytes == Wide{n - kHeaderBytes};
  require(well_formed == (error == PacketError::ok));
  if (error == PacketError::ok) {
    require(out.payload == packet.get() + kHeaderBytes);
    require(out.plane_bytes * out.channel_count == n - kHeaderBytes);
    require(out.first_channel == h.first && out.channel_count == h.channels);
    require(out.sample_count == h.sample_count && out.sequence == h.sequence);
    require(out.timestamp == h.timestamp && out.time_us == h.time_us);
  } else {
    require(out.payload == nullptr);
  }

  uint8_t again[kHeaderBytes];
  write_packet_header(again, h);
  for (size_t i = 0; i < kHeaderBytes; ++i) require(again[i] == packet[i]);
  return 0;
}
