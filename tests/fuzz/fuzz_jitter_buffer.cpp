// The jitter buffer, call by call, with any timestamps, lengths, arrivals and times.
//
// Input: five bytes of configuration, then calls: an opcode byte, and the operands it needs.
// Checked after every call: each sample is counted once, frames are numbered and as long as they
// have to be, the timeline only moves forward, nothing is written beyond the planes, and memory
// holds still (the sanitizers' part).
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "conceal.cpp"
#include "jitter_buffer.cpp"
#include "jitter_render.cpp"

using namespace relaycore;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  template <class T>
  T take() {
    T value{};
    const size_t n = std::min(sizeof value, left_);
    std::memcpy(&value, at_, n);
    at_ += n;
    left_ -= n;
    return value;
  }

 private:
  const uint8_t* at_;
  size_t left_;
};

constexpr unsigned kFrameMs[] = {5, 10, 20, 40, 60};
constexpr unsigned kRates[] = {8000, 8000, 11025, 44100, 96000};
constexpr float kCanary = 12345;
constexpr int64_t kMs = 1'000'000;

// A buffer, and what has to hold whatever is done to it.
class Watched {
 public:
  explicit Watched(const JitterConfig& config)
      : config_(config),
        buffer_(JitterBuffer::create(config)),
        width_(buffer_->max_frame_samples()),
        memory_(config.channels * (width_ + 1), kCanary),
        samples_(config.sample_rate),
        end_(config.origin) {
    for (unsigned c = 0; c < config.channels; ++c) planes_.push_back(&memory_[c * (width_ + 1)]);
    for (size_t i = 0; i < samples_.size(); ++i) {
      samples_[i] = std::sin(0.01f * static_cast<float>(i % 9000));
    }
  }

  void place(unsigned channel, uint64_t timestamp, int64_t arrival, size_t n, size_t split) {
    buffer_->place(channel, timestamp, arrival, samples_.data(), split, samples_.data() + split,
                   n - split);
    pushed_[channel] += n;
    work_ += n + 1;
    check();
  }

  void tick(int64_t now) {
    const int64_t due = buffer_->next_deadline_ns();
    FrameInfo info;
    const auto tick = buffer_->tick(now, planes_.data(), info);
    work_ += config_.channels * width_;
    if (tick == JitterBuffer::Tick::frame) {
      const uint64_t thousandths = uint64_t{config_.sample_rate} * config_.frame_ms;
      require(info.index == frames_);
      require(info.samples == (frames_ + 1) * thousandths / 1000 - frames_ * thousandths / 1000);
      require(info.timestamp >= end_);
      require(info.discontinuity || info.timestamp == end_);
      require(buffer_->end_timestamp() == info.timestamp + info.samples);
      require(info.concealed_mask >> config_.channels == 0);
      for (unsigned c = 0; c < config_.channels; ++c) {
        for (unsigned i = 0; i < info.samples; ++i) require(std::abs(planes_[c][i]) <= 2.0f);
        require(planes_[c][width_] == kCanary);
      }
      ++frames_;
    } else {
      require(buffer_->end_timestamp() == end_);
      require(tick == JitterBuffer::Tick::none || !buffer_->ended());
      if (tick == JitterBuffer::Tick::none && !buffer_->ended()) {
        require(buffer_->next_deadline_ns() == due);
      }
    }
    end_ = buffer_->end_timestamp();
    check();
  }

  void finish() { buffer_->finish(); }
  unsigned channels() const { return config_.channels; }
  unsigned rate() const { return config_.sample_rate; }
  uint64_t work() const { return work_; }

 private:
  void check() const {
    for (unsigned c = 0; c < config_.channels; ++c) {
      const ChannelCounters& n = buffer_->counters(c);
      require(n.received + n.duplicate + n.late + n.dropped == pushed_[c]);
      require(n.lost <= n.concealed);
    }
    require(std::isfinite(buffer_->fill_ms()) && std::isfinite(buffer_->jitter_ms()));
    require(buffer_->target_ms() > 0 && buffer_->target_ms() <= 1150.5);
    require(std::abs(buffer_->drift_ppm()) <= 1000.0001);
    require(!(buffer_->live() && buffer_->ended()));
  }

  const JitterConfig config_;
  const std::unique_ptr<JitterBuffer> buffer_;
  const unsigned width_;
  std::vector<float> memory_;
  std::vector<float*> planes_;
  std::vector<float> samples_;
  uint64_t pushed_[4] = {};
  uint64_t frames_ = 0;
  uint64_t end_;
  uint64_t work_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  JitterConfig config;
  config.channels = 1 + input.take<uint8_t>() % 4;
  config.sample_rate = kRates[input.take<uint8_t>() % 5];
  config.frame_ms = kFrameMs[input.take<uint8_t>() % 5];
  config.target_ms = 5.0 * (input.take<uint8_t>() % 200);  // 0: adaptive
  config.origin = uint64_t{1} << (input.take<uint8_t>() % 50);
  Watched buffer(config);

  uint64_t next = 0;  // the timestamp that a source without faults would send
  int64_t now = 0;
  while (!input.empty() && buffer.work() < 1'000'000) {
    const uint8_t op = input.take<uint8_t>();
    switch (op % 8) {
      case 0:  // time passes, by up to 65 ms or to anywhere
        now = op == 0 ? input.take<int64_t>() % (int64_t{1} << 62)
                      : now + 1000 * input.take<uint16_t>();
        break;
      case 1:
      case 2: {  // a packet like any
        const uint8_t how = input.take<uint8_t>();
        const size_t n = how % 8 == 0   ? 0
                         : how % 8 == 7 ? input.take<uint16_t>() % (buffer.rate() + 1)
                                        : buffer.rate() / (10 * (how % 8));
        uint64_t timestamp = next;
        if (how >= 240) {
          timestamp = input.take<uint64_t>();
        } else if (how >= 128) {
          timestamp += static_cast<uint64_t>(static_cast<int64_t>(input.take<int16_t>()));
        }
        const int64_t arrival = how == 127 ? input.take<int64_t>() : now;
        buffer.place(op / 8 % buffer.channels(), timestamp, arrival, n, how * n / 256);
        if (op % 8 == 2) next = timestamp + n;
        break;
      }
      case 3:  // the source skips, or repeats
        next += static_cast<uint64_t>(static_cast<int64_t>(input.take<int16_t>()));
        break;
      case 4:
      case 5:  // a source without faults for a while, of all channels or without one
        for (unsigned k = 0; k <= op / 8u; ++k) {
          const size_t n = buffer.rate() / 50;
          for (unsigned c = op % 8 - 4; c < buffer.channels(); ++c) {
            buffer.place(c, next, now, n, n);
          }
          next += n;
          for (int i = 0; i < 4; ++i) buffer.tick(now += 5 * kMs);
        }
        break;
      case 6:
        buffer.tick(now);
        break;
      case 7:
        if (op == 255) buffer.finish();
        buffer.tick(now += 20 * kMs);
        break;
    }
  }
  return 0;
}
