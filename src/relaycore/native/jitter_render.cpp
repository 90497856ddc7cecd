// What is heard of a channel: the samples that came, and the joints around those that did not.
//
// The ring of samples keeps, behind the head, what was heard (concealment is written back into it),
// so that a gap can go on from there.
#include <algorithm>
#include <array>
#include <cstring>

#include "relaycore/conceal.h"
#include "relaycore/jitter_buffer.h"

namespace relaycore {
namespace {

constexpr std::size_t kMaxFade = 960;  // 10 ms at 96 kHz

}  // namespace

// One channel's part of the frame at the head. True when not all of it is as it was sent.
bool JitterBuffer::render(Channel& channel, float* out, unsigned n) noexcept {
  predictions_left_ = 2;
  bool altered = false;
  for (unsigned i = 0; i < n;) {
    const std::uint64_t position = head_ + i;
    const bool present = channel.present.test(position);
    const auto run = static_cast<unsigned>(channel.present.run(position, n - i));
    if (present) {
      altered |= render_data(channel, position, out + i, run);
    } else {
      altered |= render_gap(channel, position, out + i, run);
    }
    i += run;
  }
  return altered;
}

// The last frame before buffering, when there is no gap for its sound to fade in.
void JitterBuffer::fade_out(float* out, unsigned n) noexcept {
  const unsigned length = std::min(n, fade_);
  RaisedCosine falling(0, length);
  for (unsigned i = n - length; i < n; ++i) out[i] *= falling.next();
}

bool JitterBuffer::render_data(Channel& channel, std::uint64_t position, float* out,
                               unsigned n) noexcept {
  const unsigned fade = fade_ / 2;
  if (channel.missing != 0) {  // a gap ends here
    const bool expected = channel.arranged && channel.gap_end == position;
    if (!expected) {
      if (channel.active) {
        continue_sound(channel, position, fade);
      } else {
        std::fill_n(channel.continuation, fade, 0.0f);
      }
      channel.fade_left = fade;
    }
    channel.missing = 0;
    channel.arranged = false;
  }
  if (!channel.active) {
    channel.active = true;
    channel.spoke = true;
    channel.spoke_at = position;
  }
  recall(channel, position, out, n);
  if (channel.fade_left == 0) return false;

  const unsigned done = fade - channel.fade_left;
  const unsigned count = std::min(n, channel.fade_left);
  RaisedCosine falling(done, fade);
  for (unsigned i = 0; i < count; ++i) {
    const float weight = falling.next();
    out[i] += weight * (channel.continuation[done + i] - out[i]);
  }
  remember(channel, position, out, count);
  channel.fade_left -= count;
  return true;
}

bool JitterBuffer::render_gap(Channel& channel, std::uint64_t position, float* out,
                              unsigned n) noexcept {
  std::fill_n(out, n, 0.0f);
  const bool padding = finishing_ && wrapping_difference(channel.end, position) <= 0;
  if (padding || !channel.spoke) {
    channel.present.set(position, n);  // nothing was lost here
    return false;
  }

  // The gap may go on beyond this frame; its end is known if it is near enough to matter.
  const std::size_t horizon = n + fade_;
  const auto rest = static_cast<unsigned>(channel.present.run(position, horizon));
  const bool end_known = rest < horizon;
  const bool begins = channel.missing == 0;
  const unsigned age = channel.missing;
  unsigned counted = 0;
  if (channel.active) {
    counted = std::min(n, silence_ - channel.missing);
    channel.missing += counted;
    channel.counters.concealed += counted;
    channel.counters.lost += counted;
    if (channel.missing == silence_) channel.active = false;
  }
  channel.present.set(position + counted, n - counted);

  if (begins) {
    channel.fade_left = 0;
    channel.arranged = false;
    channel.fade_out = end_known ? std::min(rest, fade_) : fade_;
    continue_sound(channel, position, channel.fade_out);
  }
  if (age < channel.fade_out) {
    RaisedCosine falling(age, channel.fade_out);
    const unsigned count = std::min(n, channel.fade_out - age);
    for (unsigned i = 0; i < count; ++i) out[i] = falling.next() * channel.continuation[age + i];
  }
  if (end_known) fade_in_before(channel, position, rest, begins, out, n);
  remember(channel, position, out, n);
  return counted != 0 || (channel.arranged && rest - channel.fade_in < n);
}

// Lets the sound behind the gap, which ends `rest` samples on, rise before it, as far as that falls
// into the n samples at `out`.
void JitterBuffer::fade_in_before(Channel& channel, std::uint64_t position, unsigned rest,
                                  bool begins, float* out, unsigned n) noexcept {
  const std::uint64_t end = position + rest;
  if (!channel.arranged || channel.gap_end != end) {
    // Too little of the gap is left to rise in: the samples that came are faded in instead.
    channel.arranged = begins || rest >= fade_ / 4;
    if (!channel.arranged) return;
    channel.gap_end = end;
    channel.fade_in = std::min(rest, fade_);
  }
  const unsigned quiet = rest - channel.fade_in;  // samples before the rise
  if (quiet >= n) return;

  std::array<float, kMaxSoundHistory> reversed;
  std::array<float, kMaxFade> sound;
  const std::size_t there = channel.present.run(end, affordable(rest));
  recall(channel, end, reversed.data(), there);
  std::reverse(reversed.begin(), reversed.begin() + static_cast<std::ptrdiff_t>(there));
  const unsigned nearest = rest - std::min(rest, n);  // distance of out[n - 1] from the end
  extrapolate(reversed.data(), there, sound.data(), channel.fade_in);
  RaisedCosine falling(nearest, channel.fade_in);
  for (unsigned distance = nearest; distance < channel.fade_in; ++distance) {
    const unsigned i = rest - 1 - distance;
    out[i] += falling.next() * sound[distance];
  }
}

// Fills `continuation` with how what was heard before `position` would go on.
void JitterBuffer::continue_sound(Channel& channel, std::uint64_t position, unsigned n) noexcept {
  const auto heard = static_cast<std::size_t>(
      std::min<std::uint64_t>(position - channel.spoke_at, sound_history_));
  const std::size_t used = std::min(heard, affordable(n));
  std::array<float, kMaxSoundHistory> history;
  recall(channel, position - used, history.data(), used);
  extrapolate(history.data(), used, channel.continuation, n);
}

// How much history a joint over n samples is worth: a few samples are bridged just as well by
// holding the last one, and a source of nothing but gaps must not cost a search for each.
std::size_t JitterBuffer::affordable(unsigned n) noexcept {
  if (n < 8 || predictions_left_ == 0) return 1;
  --predictions_left_;
  return sound_history_;
}

void JitterBuffer::recall(const Channel& channel, std::uint64_t position, float* out,
                          std::size_t n) const noexcept {
  const std::size_t at = static_cast<std::size_t>(position) & (capacity_ - 1);
  const std::size_t first = std::min(n, capacity_ - at);
  std::memcpy(out, channel.samples + at, first * sizeof(float));
  std::memcpy(out + first, channel.samples, (n - first) * sizeof(float));
}

void JitterBuffer::remember(Channel& channel, std::uint64_t position, const float* in,
                            std::size_t n) noexcept {
  const std::size_t at = static_cast<std::size_t>(position) & (capacity_ - 1);
  const std::size_t first = std::min(n, capacity_ - at);
  std::memcpy(channel.samples + at, in, first * sizeof(float));
  std::memcpy(channel.samples, in + first, (n - first) * sizeof(float));
}

}  // namespace relaycore
