#include "relaycore/jitter_buffer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <new>

namespace relaycore {
namespace {

constexpr std::int64_t kAheadMs = 1250;
constexpr std::int64_t kBehindMs = 1000;
constexpr std::int64_t kRoomMs = 100;
constexpr std::int64_t kSilenceMs = 200;
constexpr std::int64_t kFadeMs = 10;
constexpr std::int64_t kSoundHistoryMs = 32;
constexpr std::int64_t kStrayMs = 200;
constexpr std::int64_t kStrayToleranceMs = 500;
constexpr double kMaxFixedTargetMs = 1000;
constexpr std::int64_t kMaxTargetMs = 1150;
// An adaptive target has this much beyond what the packets showed, for the tick's own lateness.
constexpr std::int64_t kMarginMs = 5;
// Before packets have shown how late they come, they are taken to come this late. It also lets a
// source that began with short packets go over to long ones (4,096 samples at 48 kHz).
constexpr std::int64_t kAssumedLatenessMs = 100;
constexpr std::int64_t kAssumeNs = 10'000'000'000;
// A target comes down slowly, well within what the clock can follow.
constexpr double kEasing = 500e-6;
constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr std::int64_t kReadyPollNs = 5 * kNsPerMs;
// What is later than this is not caught up with in full.
constexpr std::int64_t kMaxLateNs = 10'000 * kNsPerMs;
// A fixed target may be exceeded by so much before it is worth an interruption.
constexpr std::int64_t kExcessMs = 250;
// So long what was held up may take to come before the delay is judged.
constexpr std::int64_t kSettleMs = 1000;

}  // namespace

std::unique_ptr<JitterBuffer> JitterBuffer::create(const JitterConfig& config) noexcept {
  const bool frame_ok = config.frame_ms == 5 || config.frame_ms == 10 || config.frame_ms == 20 ||
                        config.frame_ms == 40 || config.frame_ms == 60;
  if (config.channels < 1 || config.channels > 64 || config.sample_rate < 8000 ||
      config.sample_rate > 96000 || !frame_ok || !(config.target_ms <= kMaxFixedTargetMs)) {
    return nullptr;
  }
  std::unique_ptr<JitterBuffer> buffer(new (std::nothrow) JitterBuffer(config));
  if (buffer == nullptr || !buffer->allocate()) return nullptr;
  return buffer;
}

JitterBuffer::JitterBuffer(const JitterConfig& config) noexcept
    : config_(config),
      ahead_(samples_in(kAheadMs)),
      behind_(samples_in(kBehindMs)),
      room_(samples_in(kRoomMs)),
      silence_(static_cast<unsigned>(samples_in(kSilenceMs))),
      fade_(static_cast<unsigned>(samples_in(kFadeMs))),
      max_frame_((config.sample_rate * config.frame_ms + 999) / 1000),
      frame_ns_(config.frame_ms * kNsPerMs),
      sound_history_(static_cast<std::size_t>(samples_in(kSoundHistoryMs))),
      capacity_(std::bit_ceil(static_cast<std::size_t>(ahead_) + sound_history_)),
      timestamp_(config.origin),
      arrivals_(config.sample_rate) {
  retarget(0);
}

JitterBuffer::~JitterBuffer() = default;

bool JitterBuffer::allocate() noexcept {
  const std::size_t channels = config_.channels;
  // Twice the samples' capacity covers the window on both sides.
  const std::size_t bits = 2 * capacity_;
  const std::size_t words = BitRing::words_for(bits);
  const std::size_t stride = capacity_ + fade_;
  channels_.reset(new (std::nothrow) Channel[channels]);
  memory_.reset(new (std::nothrow) float[channels * stride]{});
  bits_.reset(new (std::nothrow) std::uint64_t[channels * words]);
  if (!channels_ || !memory_ || !bits_) return false;
  for (std::size_t c = 0; c < channels; ++c) {
    channels_[c].samples = memory_.get() + c * stride;
    channels_[c].continuation = channels_[c].samples + capacity_;
    channels_[c].present = BitRing(bits_.get() + c * words, bits);
  }
  return true;
}

// ---- packets ----

void JitterBuffer::place(unsigned channel, std::uint64_t source_timestamp,
                         std::int64_t arrival_ns, const float* a, std::size_t a_n, const float* b,
                         std::size_t b_n) noexcept {
  if (channel >= config_.channels) return;
  Channel& ch = channels_[channel];
  const auto length = static_cast<std::int64_t>(a_n + b_n);
  if (length == 0) return;
  if (finishing_) {
    ch.counters.dropped += static_cast<std::uint64_t>(length);
    return;
  }
  settle(source_timestamp, arrival_ns, length);

  // The packet covers [begin, end) relative to the head. A begin near 2^63 is cut off first, so
  // that the sum cannot overflow.
  const std::int64_t begin =
      std::min(wrapping_difference(source_timestamp, head_source_), ahead_);
  const std::int64_t end = begin + length;
  const std::int64_t late_from = std::clamp(begin, -history_, std::int64_t{0});
  const std::int64_t late_to = std::clamp(end, late_from, std::int64_t{0});
  const std::int64_t from = std::clamp(begin, std::int64_t{0}, ahead_);
  const std::int64_t to = std::clamp(end, from, ahead_);

  const std::int64_t late = late_to - late_from;
  std::size_t recovered = 0;
  if (late > 0) {
    recovered = ch.present.set(head_ + static_cast<std::uint64_t>(late_from),
                               static_cast<std::size_t>(late));
    ch.counters.lost -= recovered;
    ch.counters.late += static_cast<std::uint64_t>(late);
  }
  std::size_t fresh = 0;
  if (to > from) {
    const auto offset = static_cast<std::size_t>(from - begin);
    const auto count = static_cast<std::size_t>(to - from);
    const std::uint64_t position = head_ + static_cast<std::uint64_t>(from);
    const std::size_t in_a = offset < a_n ? std::min(count, a_n - offset) : 0;
    if (in_a != 0) fresh += fill_in(ch, position, a + offset, in_a);
    if (count > in_a) {
      fresh += fill_in(ch, position + in_a, b + (offset + in_a - a_n), count - in_a);
    }
    ch.counters.received += fresh;
    ch.counters.duplicate += count - fresh;
    if (fresh != 0) {
      ch.heard_ns = arrival_ns;
      const std::uint64_t behind = head_ + static_cast<std::uint64_t>(to);
      if (wrapping_difference(behind, ch.end) > 0) ch.end = behind;
    }
  }
  ch.counters.dropped += static_cast<std::uint64_t>(length - late - (to - from));
  if (fresh + recovered != 0) {
    arrivals_.packet(source_timestamp + static_cast<std::uint64_t>(length), arrival_ns,
                     static_cast<std::size_t>(length));
  }
}

bool JitterBuffer::drain(unsigned channel, ChannelRing& ring, std::int64_t now_ns) noexcept {
  return ring.drain([=, this](std::uint64_t timestamp, std::int64_t arrival_ns, const float* a,
                              std::size_t a_n, const float* b, std::size_t b_n) {
    if (is_early(timestamp, a_n + b_n, now_ns)) return false;
    place(channel, timestamp, arrival_ns, a, a_n, b, b_n);
    return true;
  });
}

// Whether a packet loses nothing by waiting for the frames that a late tick has to catch up with. Not
// so on time: of a source that is really so far ahead the rest is dropped, or its delay would grow.
// Nor while the stream is interrupted, where a burst is cut down to the target, and not for what does
// not follow, roughly, on what is held: what comes behind it must not wait for that.
bool JitterBuffer::is_early(std::uint64_t source_timestamp, std::size_t n,
                            std::int64_t now_ns) noexcept {
  const std::int64_t begin = wrapping_difference(source_timestamp, head_source_);
  const auto length = static_cast<std::int64_t>(n);
  // What begins in the next frame can't wait, however long it is.
  if (begin < max_frame_ || begin <= ahead_ - length || finishing_ || !ticked_) return false;
  if (!live_ && (ever_live_ || !held())) return false;
  const std::int64_t late = late_ns(now_ns);
  if (late < frame_ns_ || begin > ahead_ - length + samples_since(0, late)) return false;
  std::int64_t end = 0;
  for (unsigned c = 0; c < config_.channels; ++c) {
    end = std::max(end, wrapping_difference(channels_[c].end, head_));
  }
  if (begin > end + samples_in(kStrayToleranceMs)) return false;
  early_ = !live_;
  return true;
}

// Copies in what is not there yet; returns how much that was. The first to come is kept.
std::size_t JitterBuffer::fill_in(Channel& channel, std::uint64_t position, const float* samples,
                                  std::size_t n) noexcept {
  std::size_t fresh = 0;
  while (n != 0) {
    const bool filled = channel.present.test(position);
    const std::size_t run = channel.present.run(position, n);
    if (!filled) {
      remember(channel, position, samples, run);
      channel.present.set(position, run);
      fresh += run;
    }
    position += run;
    samples += run;
    n -= run;
  }
  return fresh;
}

// The next n positions are not played: what is held for them was received in vain. Returns how much
// that was.
std::size_t JitterBuffer::give_up(Channel& channel, std::size_t n) noexcept {
  const std::size_t was_held = n - channel.present.set(head_, n);
  channel.counters.received -= was_held;
  return was_held;
}

// Decides, before a packet is placed, whether it tells the position anew.
void JitterBuffer::settle(std::uint64_t source_timestamp, std::int64_t arrival_ns,
                          std::int64_t n) noexcept {
  if (!anchored_) {
    first_ns_ = arrival_ns;
    anchor(source_timestamp, arrival_ns);
    return;
  }
  const std::int64_t begin = wrapping_difference(source_timestamp, head_source_);
  const bool beyond = begin >= ahead_;
  if (!beyond && begin >= 0) {
    stray_ = false;
    astray_ = false;
    return;
  }
  const bool outside = beyond || begin + n <= -history_;
  if (!live_ && outside && !held()) {
    anchor(source_timestamp, arrival_ns);
    return;
  }
  const double rate = config_.sample_rate;
  const std::int64_t since = elapsed_ns(stray_ns_, arrival_ns);
  const double moved =
      static_cast<double>(wrapping_difference(source_timestamp, stray_timestamp_));
  const double expected = 1e-9 * rate * static_cast<double>(since);
  const bool agrees =
      std::abs(moved - expected) <= static_cast<double>(samples_in(kStrayToleranceMs));
  if (!stray_ || !agrees) {
    stray_ = true;
    stray_timestamp_ = source_timestamp;
    stray_ns_ = arrival_ns;
    astray_ = false;
  } else if (since >= kStrayMs * kNsPerMs) {
    astray_ = true;
    if (!live_) anchor(source_timestamp, arrival_ns);
  }
}

// Only while buffering: the timeline goes on, the source's position on it is a new one.
void JitterBuffer::anchor(std::uint64_t source_timestamp, std::int64_t arrival_ns) noexcept {
  head_source_ = source_timestamp - static_cast<std::uint64_t>(room_);
  history_ = 0;
  for (unsigned c = 0; c < config_.channels; ++c) {
    Channel& ch = channels_[c];
    const std::int64_t extent = wrapping_difference(ch.end, head_);
    if (extent > 0) ch.counters.dropped += give_up(ch, static_cast<std::size_t>(extent));
    ch.present.reset();
    ch.end = head_;
  }
  arrivals_.anchor(source_timestamp, arrival_ns);
  anchored_ = true;
  early_ = false;
  stray_ = false;
  astray_ = false;
}

// ---- states ----

// Whether there is anything to play, `beyond` samples from the head on.
bool JitterBuffer::held(std::size_t beyond) const noexcept {
  for (unsigned c = 0; c < config_.channels; ++c) {
    if (wrapping_difference(channels_[c].end, head_ + beyond) > 0) return true;
  }
  return false;
}

bool JitterBuffer::earliest(std::uint64_t& position) const noexcept {
  std::int64_t nearest = std::numeric_limits<std::int64_t>::max();
  for (unsigned c = 0; c < config_.channels; ++c) {
    const Channel& ch = channels_[c];
    const std::int64_t extent = wrapping_difference(ch.end, head_);
    if (extent <= 0) continue;
    const std::int64_t hole =
        ch.present.test(head_)
            ? 0
            : static_cast<std::int64_t>(ch.present.run(head_, static_cast<std::size_t>(extent)));
    nearest = std::min(nearest, hole);
  }
  if (nearest == std::numeric_limits<std::int64_t>::max()) return false;
  position = head_ + static_cast<std::uint64_t>(nearest);
  return true;
}

// How long ago something was, at most 10 s, in samples.
std::int64_t JitterBuffer::samples_since(std::int64_t then_ns, std::int64_t now_ns) const noexcept {
  const std::int64_t ns = std::clamp<std::int64_t>(elapsed_ns(then_ns, now_ns), 0, 10'000'000'000);
  return ns * config_.sample_rate / 1'000'000'000;
}

// How late a tick is now, with what those before it were late that found too little to begin with:
// after a standstill it takes several until all has been read that came meanwhile.
std::int64_t JitterBuffer::late_ns(std::int64_t now_ns) const noexcept {
  const std::int64_t late = std::max<std::int64_t>(elapsed_ns(deadline_ns_, now_ns), 0);
  return std::min(late, kMaxLateNs) + (live_ ? 0 : behind_ns_);
}

// What every active channel holds from `from` on, in samples. The packet that an active channel is
// about to send counts with the time that passed since its last one: with packets as long as the
// target, holding all of it would mean waiting for a second one. Of one that fell silent all counts
// that would have come by now: no more comes, or it has stalled, and what it sends late then has the
// whole target to come in, as later on.
std::int64_t JitterBuffer::level(std::int64_t now_ns, std::uint64_t from) const noexcept {
  const auto packet = static_cast<std::int64_t>(arrivals_.longest_packet());
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (unsigned c = 0; c < config_.channels; ++c) {
    const Channel& ch = channels_[c];
    if (wrapping_difference(ch.end, head_) <= 0) continue;
    const std::int64_t since = samples_since(ch.heard_ns, now_ns);
    const bool silent = since >= packet + silence_;
    const std::int64_t coming = silent ? since : std::min(packet, since);
    least = std::min(least, wrapping_difference(ch.end, from) + coming);
  }
  return least;
}

// A channel that holds the others up must not let them run out of the window.
bool JitterBuffer::fills_window(std::uint64_t from) const noexcept {
  for (unsigned c = 0; c < config_.channels; ++c) {
    if (wrapping_difference(channels_[c].end, head_) > 0 &&
        wrapping_difference(channels_[c].end, from) >= samples_in(kMaxTargetMs)) {
      return true;
    }
  }
  return false;
}

// What a late tick has missed of the time to begin is caught up with: by what is held and, the first
// time, by when the first packet came, since there may be more to come than the window has room for.
void JitterBuffer::begin(std::int64_t now_ns, std::uint64_t from) noexcept {
  const auto late = static_cast<double>(late_ns(now_ns));
  auto ahead = static_cast<double>(level(now_ns, from));
  const auto skipped = static_cast<std::size_t>(from - head_);
  for (unsigned c = 0; c < config_.channels; ++c) {
    channels_[c].counters.late += give_up(channels_[c], skipped);
  }
  advance(skipped);
  if (ever_live_) {
    const auto jump = static_cast<double>(wrapping_difference(head_source_, stop_source_));
    const double passed = 1e-9 * config_.sample_rate *
                          static_cast<double>(elapsed_ns(stop_ns_, now_ns));
    if (jump >= 0 && jump <= passed + static_cast<double>(ahead_)) {
      timestamp_ += head_source_ - stop_source_;
    }
  }
  if (!ever_live_) ahead = std::max(ahead, arrivals_.ahead_since_anchor(head_source_, now_ns));
  const double missed_ns = 1e9 * (ahead - target_) / config_.sample_rate;
  deadline_ns_ = later_by(now_ns, -std::llround(std::clamp(missed_ns, 0.0, late)));
  behind_ns_ = 0;
  early_ = false;
  live_ = true;
  resumed_ = ever_live_;
  began_ns_ = now_ns;
  ever_live_ = true;
  discontinuity_ = true;
}

// Where playing begins when `from` is the earliest sample held. After an interruption what was held
// up on its way may come all at once: of that no more is played than a fixed target wants, or the
// delay would be longer from now on.
std::uint64_t JitterBuffer::at_target(std::int64_t now_ns, std::uint64_t from) const noexcept {
  if (!ever_live_ || finishing_ || config_.target_ms <= 0) return from;
  const auto packet = static_cast<std::int64_t>(arrivals_.longest_packet());
  std::int64_t shortest = std::numeric_limits<std::int64_t>::max();
  for (unsigned c = 0; c < config_.channels; ++c) {
    const Channel& ch = channels_[c];
    if (wrapping_difference(ch.end, head_) <= 0) continue;
    if (samples_since(ch.heard_ns, now_ns) >= packet + silence_) continue;
    shortest = std::min(shortest, wrapping_difference(ch.end, from));
  }
  if (shortest == std::numeric_limits<std::int64_t>::max()) return from;
  const std::int64_t excess = shortest - static_cast<std::int64_t>(std::llround(target_));
  return excess > samples_in(kExcessMs) ? from + static_cast<std::uint64_t>(excess) : from;
}

void JitterBuffer::stop() noexcept {
  live_ = false;
  stop_source_ = head_source_;
  stop_ns_ = deadline_ns_;
  for (unsigned c = 0; c < config_.channels; ++c) {
    // As after a long gap: whoever spoke is faded in when it speaks again.
    if (channels_[c].spoke) channels_[c].missing = silence_;
    channels_[c].active = false;
    channels_[c].arranged = false;
    channels_[c].fade_left = 0;
  }
}

void JitterBuffer::end() noexcept {
  ended_ = true;
  live_ = false;
  deadline_ns_ = std::numeric_limits<std::int64_t>::max();
}

void JitterBuffer::finish() noexcept {
  finishing_ = true;
  if (!held()) end();
}

// Moves the head; positions that come into the window at its far end are empty.
void JitterBuffer::advance(std::size_t n) noexcept {
  const std::uint64_t far = head_ + static_cast<std::uint64_t>(ahead_);
  for (unsigned c = 0; c < config_.channels; ++c) channels_[c].present.clear(far, n);
  head_ += n;
  head_source_ += n;
  history_ = std::min(behind_, history_ + static_cast<std::int64_t>(n));
}

// ---- time ----

JitterBuffer::Tick JitterBuffer::tick(std::int64_t now_ns, float* const* planes,
                                      FrameInfo& info) noexcept {
  if (ended_ || (ticked_ && elapsed_ns(deadline_ns_, now_ns) < 0)) return Tick::none;
  if (!ticked_) deadline_ns_ = now_ns;
  ticked_ = true;
  arrivals_.fold(now_ns);
  retarget(now_ns);
  if (!live_) {
    std::uint64_t from;
    if (!earliest(from)) {
      if (finishing_) {
        end();
        return Tick::none;
      }
      behind_ns_ = 0;
      deadline_ns_ = later_by(now_ns, frame_ns_);
      return Tick::buffering;
    }
    const std::int64_t spare = level(now_ns, from) - static_cast<std::int64_t>(std::llround(target_));
    if (spare < 0 && !finishing_ && !early_ && !fills_window(from)) {
      // Not what any look is late by: that adds up, and a start has nothing to catch up with then.
      const std::int64_t late = std::min(elapsed_ns(deadline_ns_, now_ns), kMaxLateNs);
      if (late > kReadyPollNs) behind_ns_ = std::min(behind_ns_ + late, kMaxLateNs);
      // Looked at often, so that playing begins at the target and not up to a frame above it.
      deadline_ns_ = later_by(now_ns, kReadyPollNs);
      return Tick::buffering;
    }
    begin(now_ns, at_target(now_ns, from));
  }

  const unsigned n = next_frame_samples();
  info.index = frame_index_++;
  info.timestamp = timestamp_;
  info.samples = n;
  info.concealed_mask = 0;
  info.discontinuity = discontinuity_;
  info.deadline_ns = deadline_ns_;
  discontinuity_ = false;
  const bool last = !finishing_ && (exceeds() || ((astray_ || starves()) && !held(n)));
  bool active = false;
  for (unsigned c = 0; c < config_.channels; ++c) {
    bool altered = render(channels_[c], planes[c], n);
    if (last && channels_[c].active) {
      fade_out(planes[c], n);
      altered = true;
    }
    if (altered) info.concealed_mask |= std::uint64_t{1} << c;
    active = active || channels_[c].active;
  }
  const double period = static_cast<double>(frame_ns_) * (1.0 - speed());
  timestamp_ += n;
  advance(n);
  deadline_ns_ = later_by(deadline_ns_, std::llround(period));
  if (finishing_ && !held()) {
    end();
  } else if (!active || last) {
    stop();
  }
  return Tick::frame;
}

unsigned JitterBuffer::next_frame_samples() noexcept {
  // Carrying the remainder makes frame n cover floor(n * rate * ms / 1000) and so on, for ever.
  frame_remainder_ += config_.sample_rate * config_.frame_ms;
  const unsigned n = frame_remainder_ / 1000;
  frame_remainder_ %= 1000;
  return n;
}

bool JitterBuffer::hears(std::int64_t now_ns) const noexcept {
  const double quiet = 1e-9 * config_.sample_rate *
                       static_cast<double>(elapsed_ns(arrivals_.last_arrival_ns(), now_ns));
  return anchored_ && quiet <= arrivals_.longest_packet() + silence_;
}

// Whether far less is held than packets have lately shown to be needed. The clock would take a
// minute to make up for 60 ms, and whenever packets are held up again the sound would break; running
// dry once more is the moment to stop and fill up: one pause instead of many holes.
bool JitterBuffer::starves() const noexcept {
  return config_.target_ms <= 0 && hears(deadline_ns_) &&
         target_ - arrivals_.ahead_of(head_source_, deadline_ns_) > max_frame_;
}

// Whether, after an interruption, more than a fixed target wants came while it was played already.
// The clock would take a quarter of an hour to make up for a second. What the arrivals say counts only
// if it is held as well: on a link that has become slower they take a while to be understood, and
// stopping would pass over nothing.
bool JitterBuffer::exceeds() const noexcept {
  return config_.target_ms > 0 && resumed_ && hears(deadline_ns_) &&
         elapsed_ns(began_ns_, deadline_ns_) >= kSettleMs * kNsPerMs &&
         at_target(deadline_ns_, head_) != head_ &&
         arrivals_.ahead_of(head_source_, deadline_ns_) - target_ >
             static_cast<double>(samples_in(kExcessMs));
}

// How much faster than nominal the next frame is played.
double JitterBuffer::speed() noexcept {
  if (!hears(deadline_ns_)) return loop_.drift();
  const double error =
      (arrivals_.ahead_of(head_source_, deadline_ns_) - target_) / config_.sample_rate;
  const double speed = loop_.update(error, 1e-3 * config_.frame_ms) + easing_;
  return std::clamp(speed, -ClockLoop::kMaxSpeed, ClockLoop::kMaxSpeed);
}

// The target goes up at once, and while live comes down slowly.
void JitterBuffer::retarget(std::int64_t now_ns) noexcept {
  const double frame = 1e-3 * config_.frame_ms * config_.sample_rate;
  const double longest = arrivals_.longest_packet();
  double goal = longest + frame;
  if (config_.target_ms > 0) {
    goal = std::max(goal, 1e-3 * config_.target_ms * config_.sample_rate);
  } else {
    double need = std::max(arrivals_.need(), longest);
    if (!anchored_ || elapsed_ns(first_ns_, now_ns) < kAssumeNs) {
      need = std::max(need, longest + static_cast<double>(samples_in(kAssumedLatenessMs)));
    }
    goal = need + frame + static_cast<double>(samples_in(kMarginMs));
  }
  goal = std::min(goal, static_cast<double>(samples_in(kMaxTargetMs)));
  easing_ = 0;
  if (live_ && goal < target_) {
    const double passed = 1e-9 * static_cast<double>(elapsed_ns(retarget_ns_, now_ns));
    const double step = kEasing * std::clamp(passed, 0.0, 1.0) * config_.sample_rate;
    goal = std::max(goal, target_ - step);
    easing_ = kEasing;
  }
  target_ = goal;
  retarget_ns_ = now_ns;
}

double JitterBuffer::fill_ms() const noexcept {
  if (ended_ || !anchored_) return 0;
  if (live_ && hears(deadline_ns_)) {
    return to_ms(arrivals_.ahead_of(head_source_, deadline_ns_));
  }
  std::uint64_t from = head_;
  if (!live_ && !earliest(from)) return 0;
  std::int64_t longest = 0;
  for (unsigned c = 0; c < config_.channels; ++c) {
    longest = std::max(longest, wrapping_difference(channels_[c].end, from));
  }
  return to_ms(static_cast<double>(longest));
}

}  // namespace relaycore
