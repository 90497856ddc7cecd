#include "relaycore/packet.h"

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "check.h"

namespace relaycore {
static std::ostream& operator<<(std::ostream& out, PacketError e) { return out << describe(e); }
}  // namespace relaycore

namespace {

using namespace relaycore;

constexpr SourceFormat kFormat{Encoding::s16le, 16, 48000};

PacketHeader source_header() {
  return {kPacketVersion, kKindSource, 0, 0, 3, 2, 7, 5, 1000, 2000};
}

std::vector<uint8_t> message(const PacketHeader& h, size_t payload) {
  std::vector<uint8_t> out(kHeaderBytes + payload);
  write_packet_header(out.data(), h);
  for (size_t i = 0; i < payload; ++i) out[kHeaderBytes + i] = static_cast<uint8_t>(i);
  return out;
}

// From an allocation of exactly the length, so that a sanitizer sees a read beyond it.
PacketError parse(const std::vector<uint8_t>& m, size_t n, const SourceFormat& f, SourcePacket& out) {
  const auto copy = std::make_unique<uint8_t[]>(n);
  for (size_t i = 0; i < n; ++i) copy[i] = m[i];
  return parse_source_packet(copy.get(), n, f, out);
}

PacketError parse(const PacketHeader& h, size_t payload, const SourceFormat& f = kFormat) {
  SourcePacket out{};
  const std::vector<uint8_t> m = message(h, payload);
  return parse(m, m.size(), f, out);
}

template <class Change>
PacketError parse_changed(Change change, size_t payload = 20, const SourceFormat& f = kFormat) {
  PacketHeader h = source_header();
  change(h);
  return parse(h, payload, f);
}

}  // namespace

TEST(the_header_stands_on_the_wire_as_the_protocol_says) {
  const PacketHeader h{1, 1, 1, 0, 0x0203, 0x0405, 0x06070809, 0x0A0B0C0D, 0x1112131415161718,
                       0x2122232425262728};
  uint8_t out[kHeaderBytes];
  write_packet_header(out, h);
  const uint8_t expected[kHeaderBytes] = {
      1,    1,    1,    0,    0x03, 0x02, 0x05, 0x04, 0x09, 0x08, 0x07, 0x06, 0x0D, 0x0C, 0x0B, 0x0A,
      0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21};
  for (size_t i = 0; i < kHeaderBytes; ++i) CHECK_EQ(unsigned{out[i]}, unsigned{expected[i]});
  CHECK(read_packet_header(out) == h);
}

TEST(extreme_values_survive_the_header_at_any_alignment) {
  const PacketHeader h{255, 255, 255, 255, 0xFFFF, 0x8000, 0xFFFFFFFF, 0x80000000, UINT64_MAX,
                       0x8000000000000000};
  uint8_t buffer[kHeaderBytes + 8];
  for (size_t offset = 0; offset < 8; ++offset) {
    write_packet_header(buffer + offset, h);
    CHECK(read_packet_header(buffer + offset) == h);
  }
}

TEST(a_source_packet_is_taken_apart) {
  const std::vector<uint8_t> m = message(source_header(), 20);
  SourcePacket p{};
  CHECK_EQ(parse_source_packet(m.data(), m.size(), kFormat, p), PacketError::ok);
  CHECK(p.encoding == Encoding::s16le);
  CHECK_EQ(p.first_channel, 3u);
  CHECK_EQ(p.channel_count, 2u);
  CHECK_EQ(p.sequence, 7u);
  CHECK_EQ(p.sample_count, 5u);
  CHECK_EQ(p.timestamp, 1000u);
  CHECK_EQ(p.time_us, 2000u);
  CHECK(p.payload == m.data() + kHeaderBytes);
  CHECK_EQ(p.plane_bytes, 10u);
}

TEST(every_length_but_the_right_one_is_refused) {
  const std::vector<uint8_t> m = message(source_header(), 40);
  for (size_t n = 0; n <= m.size(); ++n) {
    SourcePacket p{};
    const PacketError expected = n < kHeaderBytes   ? PacketError::truncated
                                 : n == kHeaderBytes + 20 ? PacketError::ok
                                                          : PacketError::bad_length;
    CHECK_EQ(parse(m, n, kFormat, p), expected);
    CHECK((p.payload != nullptr) == (expected == PacketError::ok));
  }
}

TEST(version_kind_and_flags_have_one_value_each) {
  for (unsigned v = 0; v < 256; ++v) {
    const auto byte = static_cast<uint8_t>(v);
    CHECK_EQ(parse_changed([&](PacketHeader& h) { h.version = byte; }),
             v == 1 ? PacketError::ok : PacketError::bad_version);
    CHECK_EQ(parse_changed([&](PacketHeader& h) { h.kind = byte; }),
             v == 1 ? PacketError::ok : PacketError::bad_kind);
    CHECK_EQ(parse_changed([&](PacketHeader& h) { h.flags = byte; }),
             v == 0 ? PacketError::ok : PacketError::bad_flags);
  }
}

TEST(only_the_registered_encoding_is_taken_and_no_reserved_one) {
  for (unsigned registered = 0; registered < 6; ++registered) {
    for (unsigned sent = 0; sent < 256; ++sent) {
      const SourceFormat f{static_cast<Encoding>(registered), 16, 48000};
      const bool ok = registered == sent && registered <= 1;
      CHECK_EQ(parse_changed([&](PacketHeader& h) { h.encoding = static_cast<uint8_t>(sent); },
                             registered == 1 ? 40 : 20, f),
               ok ? PacketError::ok : PacketError::bad_encoding);
    }
  }
}

TEST(channels_stay_inside_the_room) {
  for (unsigned room : {1u, 2u, 16u, 64u}) {
    for (unsigned first : {0u, 1u, 2u, 15u, 16u, 63u, 64u, 65535u}) {
      for (unsigned count : {0u, 1u, 2u, 16u, 64u, 65u, 65535u}) {
        PacketHeader h = source_header();
        h.first = static_cast<uint16_t>(first);
        h.channels = static_cast<uint16_t>(count);
        h.sample_count = 1;
        const bool ok = count >= 1 && first + count <= room;
        CHECK_EQ(parse(h, 2 * size_t{count}, {Encoding::s16le, room, 48000}),
                 ok ? PacketError::ok : PacketError::bad_channels);
      }
    }
  }
}

TEST(a_packet_carries_one_sample_to_one_second) {
  const SourceFormat f{Encoding::f32le, 1, 8000};
  const auto with = [&](uint32_t samples, size_t payload) {
    return parse_changed(
        [&](PacketHeader& h) {
          h.encoding = 1;
          h.first = 0;
          h.channels = 1;
          h.sample_count = samples;
        },
        payload, f);
  };
  CHECK_EQ(with(0, 0), PacketError::bad_length);
  CHECK_EQ(with(1, 4), PacketError::ok);
  CHECK_EQ(with(8000, 32000), PacketError::ok);
  CHECK_EQ(with(8001, 32004), PacketError::too_long);
  // Sizes that would wrap in 32 bits.
  CHECK_EQ(with(0x40000000, 0), PacketError::too_long);
  CHECK_EQ(with(0xFFFFFFFF, 0), PacketError::too_long);
}

TEST(a_product_beyond_32_bits_is_not_cut) {
  // 2^26 samples of 64 channels of 4 bytes are 2^34: 0 in 32 bits.
  const SourceFormat f{Encoding::f32le, 64, 1u << 26};
  PacketHeader h = source_header();
  h.encoding = 1;
  h.first = 0;
  h.channels = 64;
  h.sample_count = 1u << 26;
  CHECK_EQ(parse(h, 0, f), PacketError::bad_length);
}

TEST(any_timestamp_is_the_timelines_business) {
  for (const uint64_t t : {uint64_t{0}, uint64_t{1} << 63, UINT64_MAX})
    CHECK_EQ(parse_changed([&](PacketHeader& h) { h.timestamp = h.time_us = t; }), PacketError::ok);
}

TEST(frames_and_levels_are_written_as_their_kinds) {
  uint8_t out[kHeaderBytes];
  write_frame_header(out, Encoding::f32le, kFlagConcealed | kFlagDiscontinuity, 9, 64,
                     0x1'0000'0002, 960, 1ull << 50, 1ull << 51);
  CHECK((read_packet_header(out) ==
         PacketHeader{1, 2, 1, 3, 9, 64, 2, 960, 1ull << 50, 1ull << 51}));
  write_levels_header(out, 9, 64, 4800, 1ull << 50, 1ull << 51);
  CHECK((read_packet_header(out) == PacketHeader{1, 3, 1, 0, 9, 64, 0, 4800, 1ull << 50, 1ull << 51}));
}

TEST(every_error_has_words_and_a_close_code_of_its_own_kind) {
  std::set<std::string> words;
  for (int i = 0; i <= static_cast<int>(PacketError::too_long); ++i) {
    const auto e = static_cast<PacketError>(i);
    words.insert(describe(e));
    const unsigned code = e == PacketError::ok ? 0 : e == PacketError::too_long ? 1009 : 4400;
    CHECK_EQ(close_code(e), code);
  }
  CHECK_EQ(words.size(), static_cast<size_t>(PacketError::too_long) + 1);
}
