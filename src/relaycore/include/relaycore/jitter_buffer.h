// The jitter buffer: packets of C channels, placed on one timeline by their timestamps, come out
// as one frame a tick, at the pace of the source's clock.
//
// A single-threaded core. The thread that ticks owns it and calls everything; channel rings carry
// packets to that thread. Time comes in as an argument only, as nanoseconds of one monotonic clock.
// Nothing allocates, locks or throws after create(); every call's time is bounded.
//
// Timeline. A source timestamp is a position; all arithmetic on it is modulo 2^64. `head` is the
// next position to play. Samples are taken from 1 s behind the head (late) to 1.25 s ahead of it
// (placed); everything outside is dropped, whatever its timestamp, but for what had better wait for
// the head to move on (drain()). The first packet fixes the position, leaving room for earlier ones;
// playing begins at the earliest sample held then, which becomes timeline timestamp `origin`.
//
// States. Buffering, until every active channel holds the target. A channel that never spoke holds
// nothing up; one that brought nothing new for 200 ms longer than the longest packet lasts does only
// until it would hold the target had it gone on: then what is held is played even if it is less. Live,
// one frame a tick without exception, until no channel had a sample for 200 ms; then buffering again.
// The first frame after buffering has `discontinuity`; its timestamp goes on by as much as the
// source's clock did, if that is forward and not beyond the time that really passed (plus the
// window), else it adjoins the last frame.
//
// What was held up may come all at once when a stopped link goes on. With a fixed target no more
// of it is played than that, give or take 250 ms: the rest is passed over when playing begins again,
// or by stopping once more a second later. A stream that begins so is played from its beginning.
//
// Re-anchoring. A packet that is not wholly inside the window ahead (late, partly late, or outside)
// says that the position is another one. Have all packets for 200 ms said so, and agreed with each
// other by moving on together with time, then what is held is played out and faded, and after it
// (buffering) the next such packet becomes the new position. In buffering with nothing held, a
// packet outside the window does so at once.
//
// Every sample pushed counts as exactly one of
//   received   placed, and since then played, or still to be played
//   duplicate  its position was already filled (the first to come is kept)
//   late       its position was already played, or passed over, even if it came before that
//   dropped    outside the window, or after finish(), or held when the position became another one
// and every position played of an active channel is received or
//   concealed  played without data: for at most 200 ms of each gap; then the channel has fallen
//              silent, is not active any more, and plays uncounted silence until it speaks again
//   lost       concealed, and not come to this moment: a sample that comes late (within 1 s) for a
//              concealed position takes it off `lost` again
//
// Concealment. A gap is filled by what came before, going on and fading (10 ms), and, when the
// samples behind the gap are there already, by what comes after, fading in before them. Samples
// that came are played bit-exact, except up to 5 ms of them that follow a gap whose end was not
// known when it was played (they are faded in), and the last 10 ms before re-anchoring (they are
// faded out). `concealed_mask` tells all of this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "relaycore/bit_ring.h"
#include "relaycore/channel_ring.h"
#include "relaycore/clock.h"
#include "relaycore/live_objects.h"

namespace relaycore {

struct JitterConfig {
  unsigned channels = 1;         // 1 to 64
  unsigned sample_rate = 48000;  // 8000 to 96000
  unsigned frame_ms = 20;        // 5, 10, 20, 40 or 60
  // The delay to hold. <= 0: adaptive, from how late packets come. Otherwise up to 1000 ms, and
  // never below the longest packet of the last half minute plus one frame, which is what a source
  // on time needs.
  double target_ms = 0;
  std::uint64_t origin = 0;  // timeline timestamp of the first sample played
};

struct ChannelCounters {
  std::uint64_t received = 0;
  std::uint64_t duplicate = 0;
  std::uint64_t late = 0;
  std::uint64_t lost = 0;
  std::uint64_t concealed = 0;
  std::uint64_t dropped = 0;
};

struct FrameInfo {
  std::uint64_t index = 0;           // +1 with every frame, from 0
  std::uint64_t timestamp = 0;       // timeline position of the first sample
  unsigned samples = 0;              // per channel
  std::uint64_t concealed_mask = 0;  // bit c: the frame of channel c is not all as it was sent
  bool discontinuity = false;        // first frame after buffering
  std::int64_t deadline_ns = 0;      // when it was due
};

class JitterBuffer : Counted<"JitterBuffer"> {
 public:
  // nullptr: a value out of its range, or no memory. Takes and touches all memory, 70 KiB to
  // 560 KiB a channel by rate: not for the audio thread.
  static std::unique_ptr<JitterBuffer> create(const JitterConfig& config) noexcept;

  ~JitterBuffer();
  JitterBuffer(const JitterBuffer&) = delete;
  JitterBuffer& operator=(const JitterBuffer&) = delete;

  // One packet of one channel, in one piece or in two (as ChannelRing::drain gives it). Any
  // timestamp, any length; a channel that does not exist is ignored.
  void place(unsigned channel, std::uint64_t source_timestamp, std::int64_t arrival_ns,
             const float* samples, std::size_t n) noexcept {
    place(channel, source_timestamp, arrival_ns, samples, n, nullptr, 0);
  }
  void place(unsigned channel, std::uint64_t source_timestamp, std::int64_t arrival_ns,
             const float* a, std::size_t a_n, const float* b, std::size_t b_n) noexcept;

  // Places what waits in a channel's ring. Whether all of it: what goes beyond the window, but would
  // not had the tick been on time, waits for the frames that are to be caught up with.
  bool drain(unsigned channel, ChannelRing& ring, std::int64_t now_ns) noexcept;

  enum class Tick {
    none,       // not due yet, or ended
    buffering,  // due, but nothing may be played yet; asks again 5 ms or a frame later
    frame,      // one frame written; more may be due
  };
  // planes: [channels], each with room for max_frame_samples().
  Tick tick(std::int64_t now_ns, float* const* planes, FrameInfo& info) noexcept;

  // When tick() wants to be called next. 0 before the first call, INT64_MAX when ended.
  std::int64_t next_deadline_ns() const noexcept { return deadline_ns_; }
  unsigned max_frame_samples() const noexcept { return max_frame_; }

  // Plays out what is held without waiting for more. Positions beyond a channel's last sample are
  // padding: zeros, and not counted.
  void finish() noexcept;
  bool ended() const noexcept { return ended_; }

  bool live() const noexcept { return live_; }
  // Live: the delay between source and playout, averaged over some seconds (see clock.h), or what
  // is held while nothing comes. Buffering: what is held.
  double fill_ms() const noexcept;
  double target_ms() const noexcept { return to_ms(target_); }
  // How much later than the average the latest packet of the last half minute came.
  double jitter_ms() const noexcept { return to_ms(arrivals_.lateness()); }
  // How much faster than ours the source's clock runs.
  double drift_ppm() const noexcept { return 1e6 * loop_.drift(); }
  // First timeline timestamp not used yet.
  std::uint64_t end_timestamp() const noexcept { return timestamp_; }
  const ChannelCounters& counters(unsigned channel) const noexcept {
    return channels_[channel].counters;
  }
  unsigned channels() const noexcept { return config_.channels; }

 private:
  struct Channel {
    float* samples = nullptr;  // ring of `capacity_`: held ahead of the head, as heard behind it
    BitRing present;           // ahead: placed. Behind: not (concealed and still missing)
    float* continuation = nullptr;  // [fade_]: how the sound before the gap would have gone on
    std::uint64_t end = 0;          // behind the last position placed
    std::uint64_t spoke_at = 0;     // where it became active: samples before are not its sound
    std::uint64_t gap_end = 0;      // where the gap ends, when `arranged`
    std::int64_t heard_ns = 0;      // last arrival that brought something new
    unsigned missing = 0;           // length of the gap so far, up to silence_
    unsigned fade_out = 0;          // over how many samples the gap's beginning fades
    unsigned fade_in = 0;           // over how many samples the sound before gap_end rises
    unsigned fade_left = 0;         // samples that came and are still to be faded in
    bool active = false;
    bool spoke = false;
    bool arranged = false;
    ChannelCounters counters;
  };

  explicit JitterBuffer(const JitterConfig& config) noexcept;
  bool allocate() noexcept;

  // Positions of the timeline, and states (jitter_buffer.cpp).
  void anchor(std::uint64_t source_timestamp, std::int64_t arrival_ns) noexcept;
  void settle(std::uint64_t source_timestamp, std::int64_t arrival_ns, std::int64_t n) noexcept;
  bool is_early(std::uint64_t source_timestamp, std::size_t n, std::int64_t now_ns) noexcept;
  bool held(std::size_t beyond = 0) const noexcept;
  bool earliest(std::uint64_t& position) const noexcept;
  std::int64_t samples_since(std::int64_t then_ns, std::int64_t now_ns) const noexcept;
  std::int64_t late_ns(std::int64_t now_ns) const noexcept;
  std::int64_t level(std::int64_t now_ns, std::uint64_t from) const noexcept;
  bool fills_window(std::uint64_t from) const noexcept;
  std::uint64_t at_target(std::int64_t now_ns, std::uint64_t from) const noexcept;
  void begin(std::int64_t now_ns, std::uint64_t from) noexcept;
  void advance(std::size_t n) noexcept;
  void stop() noexcept;
  void end() noexcept;
  std::size_t give_up(Channel& channel, std::size_t n) noexcept;
  std::size_t fill_in(Channel& channel, std::uint64_t position, const float* samples,
                      std::size_t n) noexcept;
  unsigned next_frame_samples() noexcept;
  void retarget(std::int64_t now_ns) noexcept;
  bool starves() const noexcept;
  bool exceeds() const noexcept;
  bool hears(std::int64_t now_ns) const noexcept;
  double speed() noexcept;
  double to_ms(double samples) const noexcept { return 1e3 * samples / config_.sample_rate; }
  std::int64_t samples_in(std::int64_t ms) const noexcept {
    return ms * static_cast<std::int64_t>(config_.sample_rate) / 1000;
  }

  // What is heard (jitter_render.cpp).
  bool render(Channel& channel, float* out, unsigned n) noexcept;
  bool render_data(Channel& channel, std::uint64_t position, float* out, unsigned n) noexcept;
  bool render_gap(Channel& channel, std::uint64_t position, float* out, unsigned n) noexcept;
  void fade_in_before(Channel& channel, std::uint64_t position, unsigned rest, bool begins,
                      float* out, unsigned n) noexcept;
  void fade_out(float* out, unsigned n) noexcept;
  void continue_sound(Channel& channel, std::uint64_t position, unsigned n) noexcept;
  std::size_t affordable(unsigned n) noexcept;
  void recall(const Channel& channel, std::uint64_t position, float* out,
              std::size_t n) const noexcept;
  void remember(Channel& channel, std::uint64_t position, const float* in, std::size_t n) noexcept;

  const JitterConfig config_;
  std::int64_t ahead_ = 0;   // the window, in samples
  std::int64_t behind_ = 0;
  std::int64_t room_ = 0;    // for packets earlier than the one that anchors
  unsigned silence_ = 0;     // 200 ms
  unsigned fade_ = 0;        // 10 ms
  unsigned max_frame_ = 0;
  unsigned predictions_left_ = 0;  // in this frame and channel
  std::int64_t frame_ns_ = 0;
  std::size_t sound_history_ = 0;  // 32 ms
  std::size_t capacity_ = 0;

  std::unique_ptr<Channel[]> channels_;
  std::unique_ptr<float[]> memory_;
  std::unique_ptr<std::uint64_t[]> bits_;

  std::uint64_t head_ = 0;         // position of the next sample to play
  std::uint64_t head_source_ = 0;  // its source timestamp
  std::int64_t history_ = 0;       // positions behind the head that were played or passed over
  std::uint64_t timestamp_ = 0;    // its timeline timestamp
  std::uint64_t frame_index_ = 0;
  unsigned frame_remainder_ = 0;   // thousandths of a sample carried to the next frame

  std::uint64_t stop_source_ = 0;  // head_source_ when the last frame was played
  std::int64_t stop_ns_ = 0;

  std::uint64_t stray_timestamp_ = 0;  // first of the packets that agree on another position
  std::int64_t stray_ns_ = 0;
  bool stray_ = false;
  bool astray_ = false;  // they have agreed for 200 ms

  bool anchored_ = false;
  bool live_ = false;
  bool ever_live_ = false;
  bool resumed_ = false;  // live for at least the second time
  bool discontinuity_ = false;
  bool ticked_ = false;
  bool finishing_ = false;
  bool ended_ = false;
  bool early_ = false;  // buffering, and more has come than the window has room for

  std::int64_t deadline_ns_ = 0;
  std::int64_t behind_ns_ = 0;    // by so much the ticks of this buffering were late
  std::int64_t first_ns_ = 0;     // arrival of the first packet
  std::int64_t began_ns_ = 0;     // when it went live
  std::int64_t retarget_ns_ = 0;
  double target_ = 0;  // samples
  double easing_ = 0;  // how fast the target comes down now, seconds per second
  ArrivalClock arrivals_;
  ClockLoop loop_;
};

}  // namespace relaycore
