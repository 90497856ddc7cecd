// Rendering: planar block in, wire frame out.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "relaycore/layout.h"
#include "relaycore/pcm_ops.h"

namespace relaycore {
namespace {

alignas(64) const float kSilence[kMaxFrameSamples] = {};

unsigned payload_channels(const LayoutKey& key, const Block& block) noexcept {
  if (key.mode == Mode::mix) return 2;
  return key.all_channels ? block.stream->channels
                          : static_cast<unsigned>(std::popcount(key.channels));
}

// Channels that do not exist (yet) are silent.
const float* plane_or_silence(const Block& block, unsigned channel) noexcept {
  return channel < block.stream->channels ? block.plane(channel) : kSilence;
}

// The channels of a set, ascending.
template <class F>
void for_each_channel(uint64_t set, F&& f) {
  for (; set; set &= set - 1) f(static_cast<unsigned>(std::countr_zero(set)));
}

void write_samples(Encoding encoding, const float* const* planes, unsigned channels, size_t n,
                   uint8_t* out) noexcept {
  if (encoding == Encoding::s16le)
    pcm_ops().interleave_s16(planes, channels, n, out);
  else
    pcm_ops().interleave_f32(planes, channels, n, out);
}

void render_mix(const LayoutKey& key, const LayoutKey* from, const Block& block,
                RenderScratch& scratch, uint8_t* out) noexcept {
  const float* planes[kMaxChannels];
  float gains[2 * kMaxChannels];
  float old_gains[2 * kMaxChannels];
  uint64_t heard = key.channels | (from ? from->channels : 0);
  if (block.stream->channels < kMaxChannels) heard &= (uint64_t{1} << block.stream->channels) - 1;
  unsigned count = static_cast<unsigned>(std::popcount(heard)), i = 0;
  for_each_channel(heard, [&](unsigned c) {
    planes[i] = block.plane(c);
    for (unsigned side = 0; side < 2; ++side) {
      gains[side * count + i] = key.gains[side][c];
      old_gains[side * count + i] = from ? from->gains[side][c] : 0.0f;
    }
    ++i;
  });
  float* sides[2] = {scratch.left, scratch.right};
  if (from)
    pcm_ops().mix_ramp(planes, count, block.samples, old_gains, gains, 2, sides);
  else
    pcm_ops().mix(planes, count, block.samples, gains, 2, sides);
  write_samples(key.encoding, sides, 2, block.samples, out);
}

}  // namespace

size_t frame_payload_bytes(const LayoutKey& key, const Block& block) noexcept {
  return size_t{block.samples} * payload_channels(key, block) * sample_bytes(key.encoding);
}

void render_frame(const LayoutKey& key, const LayoutKey* from, const Block& block,
                  RenderScratch& scratch, Frame& frame) noexcept {
  uint64_t heard = key.channels | (from ? from->channels : 0);
  if (key.mode == Mode::mix) {
    render_mix(key, from, block, scratch, frame.payload());
  } else {
    const float* planes[kMaxChannels];
    unsigned count = 0;
    if (key.all_channels)
      for (; count < block.stream->channels; ++count) planes[count] = block.plane(count);
    else
      for_each_channel(key.channels, [&](unsigned c) { planes[count++] = plane_or_silence(block, c); });
    write_samples(key.encoding, planes, count, block.samples, frame.payload());
  }
  uint8_t flags = (block.concealed & heard ? kFlagConcealed : 0) |
                  (block.discontinuity ? kFlagDiscontinuity : 0);
  write_frame_header(frame.seal(frame_payload_bytes(key, block)), key.encoding, flags,
                     block.stream->stream, static_cast<uint16_t>(payload_channels(key, block)),
                     block.index, block.samples, block.timestamp, block.time_us);
}

void render_levels(const BlockRing& blocks, uint64_t first, uint64_t last, Frame& frame) noexcept {
  const Block& begin = *blocks[first];
  unsigned channels = begin.stream->channels;
  auto* out = reinterpret_cast<float*>(frame.payload());
  uint32_t samples = 0;
  for (uint64_t number = first; number <= last; ++number) samples += blocks[number]->samples;
  for (unsigned c = 0; c < channels; ++c) {
    float peak = 0;
    double squares = 0;
    for (uint64_t number = first; number <= last; ++number) {
      float block_peak;
      double block_squares;
      pcm_ops().levels(blocks[number]->plane(c), blocks[number]->samples, &block_peak,
                       &block_squares);
      peak = std::max(peak, block_peak);
      squares += block_squares;
    }
    out[2 * c] = 20 * std::log10(peak);
    out[2 * c + 1] = static_cast<float>(10 * std::log10(squares / samples));
  }
  write_levels_header(frame.seal(levels_payload_bytes(begin)), begin.stream->stream,
                      static_cast<uint16_t>(channels), samples, begin.timestamp, begin.time_us);
}

}  // namespace relaycore
