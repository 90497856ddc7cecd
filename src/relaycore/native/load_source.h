// The packets of a source: which is due when, on absolute deadlines of the media clock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "load_connection.h"
#include "relaycore/load_client.h"
#include "relaycore/packet.h"

namespace relaycore {

// Noise of one format, shared by all its sources: nothing about the cost depends on it.
inline std::string load_noise(const SourceFormat& format, size_t samples) {
  std::string out(samples * format.channels * sample_bytes(format.encoding), '\0');
  uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<int16_t>(static_cast<int32_t>(state >> 18) - 8192);  // a quarter of the scale
  };
  auto* const p = reinterpret_cast<uint8_t*>(out.data());
  for (size_t i = 0; i < samples * format.channels; ++i) {
    if (format.encoding == Encoding::s16le) {
      store_le16(p + 2 * i, static_cast<uint16_t>(next()));
    } else {
      const float value = static_cast<float>(next()) / 32768.0f;
      uint32_t bits;
      static_assert(sizeof bits == sizeof value);
      __builtin_memcpy(&bits, &value, sizeof bits);
      store_le32(p + 4 * i, bits);
    }
  }
  return out;
}

// One source's pace. Packet n holds the samples of frame n and is sent when the last of them is due.
class LoadPacing {
 public:
  // A shift apart from others lets a thousand sources not speak in the same instant.
  LoadPacing(const SourceFormat& format, unsigned frame_ms, int64_t shift_ns)
      : format_(format), frame_ms_(frame_ms), shift_ns_(shift_ns) {}

  const SourceFormat& format() const noexcept { return format_; }

  // Begins, or goes on after an interruption: the media clock runs through it.
  void begin(int64_t now_ns, int64_t unix_offset_ns) noexcept {
    if (origin_ns_ == 0) {
      origin_ns_ = now_ns + shift_ns_;
      unix_offset_ns_ = unix_offset_ns;
    }
    next_ = now_ns < origin_ns_ ? 0 : static_cast<uint64_t>((now_ns - origin_ns_) / period_ns());
  }

  int64_t due_ns() const noexcept {
    return origin_ns_ + static_cast<int64_t>(next_ + 1) * period_ns();
  }

  // The header of the packet that is due; then the next one is.
  PacketHeader take() noexcept {
    const uint64_t first = start(next_);
    const int64_t at_ns = origin_ns_ + static_cast<int64_t>(next_) * period_ns() + unix_offset_ns_;
    const PacketHeader header{kPacketVersion,
                              kKindSource,
                              static_cast<uint8_t>(format_.encoding),
                              0,
                              0,
                              static_cast<uint16_t>(format_.channels),
                              sequence_++,
                              static_cast<uint32_t>(start(next_ + 1) - first),
                              first,
                              static_cast<uint64_t>(at_ns / 1000)};
    ++next_;
    return header;
  }
  void skip() noexcept { ++next_; }

 private:
  int64_t period_ns() const noexcept { return int64_t{frame_ms_} * 1'000'000; }
  uint64_t start(uint64_t n) const noexcept { return n * format_.sample_rate * frame_ms_ / 1000; }

  SourceFormat format_;
  unsigned frame_ms_;
  int64_t shift_ns_;
  int64_t origin_ns_ = 0, unix_offset_ns_ = 0;
  uint64_t next_ = 0;
  uint32_t sequence_ = 0;
};

}  // namespace relaycore
