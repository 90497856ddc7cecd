// The binary messages of the wire, one 32-byte header each (docs/protocol.md, section 2).
//
//   offset  type  kind 1: source packet       kind 2: frame            kind 3: levels
//   0       u8    version = 1                 1                        1
//   1       u8    kind = 1                    2                        3
//   2       u8    encoding                    encoding                 1 (f32)
//   3       u8    flags = 0                   1 concealed, 2 discont.  0
//   4       u16   first_channel               stream                   stream
//   6       u16   channel_count               channels in the payload  channels of the room
//   8       u32   sequence, wraps             frame number, wraps      0
//   12      u32   sample_count per channel    the same                 samples measured
//   16      u64   timestamp, source's clock   on the room's timeline   the same
//   24      u64   time_us, 0 = unknown        tick deadline            the same
//   32      ...   planar samples              interleaved samples      per channel: peak, RMS
//
// All integers are little-endian; they are put together from bytes, so neither the machine's
// byte order nor the alignment of the buffer matters. No function here allocates, throws or
// keeps a pointer; all may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace relaycore {

enum class Encoding : uint8_t { s16le = 0, f32le = 1, opus = 2, s24le = 3 };

inline constexpr size_t kHeaderBytes = 32;
inline constexpr uint8_t kPacketVersion = 1;
inline constexpr uint8_t kKindSource = 1, kKindFrame = 2, kKindLevels = 3;
inline constexpr uint8_t kFlagConcealed = 1, kFlagDiscontinuity = 2;

// Bytes of one sample of one channel; 0 for encodings that are reserved.
constexpr size_t sample_bytes(Encoding encoding) noexcept {
  switch (encoding) {
    case Encoding::s16le: return 2;
    case Encoding::f32le: return 4;
    case Encoding::opus:
    case Encoding::s24le: break;
  }
  return 0;
}

// ---- explicit little-endian access: compilers make one load or store of each ----

constexpr uint16_t load_le16(const uint8_t* p) noexcept {
  return static_cast<uint16_t>(p[0] | p[1] << 8);
}
constexpr uint32_t load_le32(const uint8_t* p) noexcept {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 |
         static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24;
}
constexpr uint64_t load_le64(const uint8_t* p) noexcept {
  return load_le32(p) | static_cast<uint64_t>(load_le32(p + 4)) << 32;
}
constexpr void store_le16(uint8_t* p, uint16_t v) noexcept {
  p[0] = static_cast<uint8_t>(v);
  p[1] = static_cast<uint8_t>(v >> 8);
}
constexpr void store_le32(uint8_t* p, uint32_t v) noexcept {
  store_le16(p, static_cast<uint16_t>(v));
  store_le16(p + 2, static_cast<uint16_t>(v >> 16));
}
constexpr void store_le64(uint8_t* p, uint64_t v) noexcept {
  store_le32(p, static_cast<uint32_t>(v));
  store_le32(p + 4, static_cast<uint32_t>(v >> 32));
}

// ---- the header as it stands on the wire, any kind, nothing checked ----

struct PacketHeader {
  uint8_t version, kind, encoding, flags;
  uint16_t first;     // first_channel of a source packet, stream of a frame or of levels
  uint16_t channels;
  uint32_t sequence;
  uint32_t sample_count;
  uint64_t timestamp;
  uint64_t time_us;

  friend constexpr bool operator==(const PacketHeader&, const PacketHeader&) noexcept = default;
};

// `p` has at least kHeaderBytes bytes.
constexpr PacketHeader read_packet_header(const uint8_t* p) noexcept {
  return {p[0],           p[1],           p[2],
          p[3],           load_le16(p + 4), load_le16(p + 6),
          load_le32(p + 8), load_le32(p + 12), load_le64(p + 16),
          load_le64(p + 24)};
}

constexpr void write_packet_header(uint8_t* out, const PacketHeader& h) noexcept {
  out[0] = h.version;
  out[1] = h.kind;
  out[2] = h.encoding;
  out[3] = h.flags;
  store_le16(out + 4, h.first);
  store_le16(out + 6, h.channels);
  store_le32(out + 8, h.sequence);
  store_le32(out + 12, h.sample_count);
  store_le64(out + 16, h.timestamp);
  store_le64(out + 24, h.time_us);
}

// Kind 2. `flags` is any of kFlagConcealed and kFlagDiscontinuity; `frame` is the number of the
// frame in its stream, of which the low 32 bits go out.
constexpr void write_frame_header(uint8_t* out, Encoding encoding, uint8_t flags, uint16_t stream,
                                  uint16_t channels, uint64_t frame, uint32_t sample_count,
                                  uint64_t timestamp, uint64_t time_us) noexcept {
  write_packet_header(out, {kPacketVersion, kKindFrame, static_cast<uint8_t>(encoding), flags,
                            stream, channels, static_cast<uint32_t>(frame), sample_count,
                            timestamp, time_us});
}

// Kind 3. The payload is two f32 per channel: peak and RMS in dBFS.
constexpr void write_levels_header(uint8_t* out, uint16_t stream, uint16_t channels,
                                   uint32_t sample_count, uint64_t timestamp,
                                   uint64_t time_us) noexcept {
  write_packet_header(out, {kPacketVersion, kKindLevels, static_cast<uint8_t>(Encoding::f32le), 0,
                            stream, channels, 0, sample_count, timestamp, time_us});
}

// ---- source packets, as they are checked ----

// What the source registered; every packet of it is held to that.
struct SourceFormat {
  Encoding encoding;
  unsigned channels;     // of the room, 1..64
  unsigned sample_rate;  // Hz; also the most samples one packet may carry, as that is one second
};

struct SourcePacket {
  Encoding encoding;
  unsigned first_channel, channel_count;  // first_channel + channel_count <= format.channels
  uint32_t sequence, sample_count;        // 1 <= sample_count <= format.sample_rate
  uint64_t timestamp, time_us;            // any value: the timeline decides what it means
  const uint8_t* payload;                 // borrowed from the message; not aligned
  size_t plane_bytes;                     // bytes of one channel; plane i starts at i * plane_bytes
};

enum class PacketError {
  ok,
  truncated,     // shorter than a header
  bad_version,
  bad_kind,      // not a source packet
  bad_flags,
  bad_encoding,  // reserved, or not the one registered
  bad_channels,  // none, or beyond the room's
  bad_length,    // no samples, or the payload is not exactly what the header says
  too_long,      // over one second of audio
};

// Fills `out` and returns ok only if every field and the length `n` hold together; otherwise
// `out` is left as it was. Reads nothing beyond data[0..n).
constexpr PacketError parse_source_packet(const uint8_t* data, size_t n, const SourceFormat& format,
                                          SourcePacket& out) noexcept {
  if (n < kHeaderBytes) return PacketError::truncated;
  const PacketHeader h = read_packet_header(data);
  if (h.version != kPacketVersion) return PacketError::bad_version;
  if (h.kind != kKindSource) return PacketError::bad_kind;
  if (h.flags != 0) return PacketError::bad_flags;
  const size_t bytes = sample_bytes(format.encoding);
  if (bytes == 0 || h.encoding != static_cast<uint8_t>(format.encoding))
    return PacketError::bad_encoding;
  // Two u16 fields: their sum cannot wrap in unsigned.
  if (h.channels == 0 || unsigned{h.first} + h.channels > format.channels)
    return PacketError::bad_channels;
  if (h.sample_count == 0) return PacketError::bad_length;
  if (h.sample_count > format.sample_rate) return PacketError::too_long;
  // At most 2^32 * 2^16 * 4 = 2^50: it does not wrap in 64 bits.
  const uint64_t plane = uint64_t{h.sample_count} * bytes;
  if (plane * h.channels != n - kHeaderBytes) return PacketError::bad_length;
  out = {format.encoding, h.first,     h.channels, h.sequence,          h.sample_count,
         h.timestamp,     h.time_us,   data + kHeaderBytes, static_cast<size_t>(plane)};
  return PacketError::ok;
}

// The WebSocket close code that answers a packet with this error; 0 for ok.
constexpr uint16_t close_code(PacketError error) noexcept {
  switch (error) {
    case PacketError::ok: return 0;
    case PacketError::too_long: return 1009;
    default: return 4400;
  }
}

// One short English phrase, for the reason of the close frame.
constexpr const char* describe(PacketError error) noexcept {
  switch (error) {
    case PacketError::ok: return "ok";
    case PacketError::truncated: return "packet shorter than its header";
    case PacketError::bad_version: return "unknown packet version";
    case PacketError::bad_kind: return "not a source packet";
    case PacketError::bad_flags: return "packet flags must be 0";
    case PacketError::bad_encoding: return "encoding is not the registered one";
    case PacketError::bad_channels: return "channels outside those registered";
    case PacketError::bad_length: return "payload length does not fit the header";
    case PacketError::too_long: return "more than one second of audio in a packet";
  }
  return "unknown packet error";
}

}  // namespace relaycore
