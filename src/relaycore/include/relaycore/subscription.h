// What a listener asked for, and the layout that follows from it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>

#include "relaycore/block.h"
#include "relaycore/packet.h"

namespace relaycore {

enum class Mode : uint8_t { multichannel = 0, mix = 1 };

struct Subscription {
  Mode mode = Mode::multichannel;
  Encoding encoding = Encoding::s16le;
  bool all_channels = true;
  bool levels = false;
  uint32_t interval_ms = 0;
  uint64_t channels = ~uint64_t{0};  // bit c: channel c, unless all_channels
  uint64_t mutes = 0;
  uint64_t solos = 0;
  float master = 1.0f;
  float faders[kMaxChannels];
  float pans[kMaxChannels];
};

// Everything that a frame's bytes depend on besides its block: listeners with equal keys share
// their frames. Of a mix that is the gains alone, whatever faders and solos they came from.
struct LayoutKey {
  Mode mode;
  Encoding encoding;
  bool all_channels;
  uint64_t channels;
  float gains[2][kMaxChannels];  // mix only: left and right

  explicit LayoutKey(const Subscription& wish) noexcept {
    std::memset(static_cast<void*>(this), 0, sizeof *this);  // padding too: keys are compared as bytes
    mode = wish.mode;
    encoding = wish.encoding;
    uint64_t wanted = wish.all_channels ? ~uint64_t{0} : wish.channels;
    if (mode == Mode::multichannel) {
      all_channels = wish.all_channels;
      channels = wanted;
      return;
    }
    uint64_t heard = wanted & ~wish.mutes;
    if (wish.solos & wanted) heard &= wish.solos;
    for (unsigned c = 0; c < kMaxChannels; ++c) {
      if (!(heard >> c & 1)) continue;
      double angle = (wish.pans[c] + 1.0) * std::numbers::pi / 4;
      double level = double{wish.faders[c]} * wish.master;
      gains[0][c] = static_cast<float>(level * std::cos(angle));
      gains[1][c] = static_cast<float>(level * std::sin(angle));
      // cos(π/2) is not quite 0 in binary; a channel panned hard is silent on the other side.
      if (wish.pans[c] >= 1.0f) gains[0][c] = 0.0f;
      if (gains[0][c] != 0.0f || gains[1][c] != 0.0f) channels |= uint64_t{1} << c;
    }
  }

  bool operator==(const LayoutKey& other) const noexcept {
    return std::memcmp(this, &other, sizeof *this) == 0;
  }

  uint64_t hash() const noexcept {  // FNV-1a over 64-bit words
    static_assert(sizeof(LayoutKey) % 8 == 0);
    uint64_t h = 0xcbf29ce484222325;
    const auto* bytes = reinterpret_cast<const unsigned char*>(this);
    for (size_t i = 0; i < sizeof *this; i += 8) {
      uint64_t word;
      std::memcpy(&word, bytes + i, 8);
      h = (h ^ word) * 0x100000001b3;
      h ^= h >> 29;
    }
    return h;
  }
};

}  // namespace relaycore
