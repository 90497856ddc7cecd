#include "relaycore/jitter_port.h"

#include <bit>
#include <new>

namespace relaycore {

std::unique_ptr<JitterPort> JitterPort::create(const JitterConfig& config) noexcept {
  std::unique_ptr<JitterPort> port(new (std::nothrow) JitterPort(config));
  if (port == nullptr) return nullptr;
  port->buffer_ = JitterBuffer::create(config);
  if (port->buffer_ == nullptr) return nullptr;
  port->rings_.reset(new (std::nothrow) ChannelRing[config.channels]);
  if (port->rings_ == nullptr) return nullptr;
  for (unsigned c = 0; c < config.channels; ++c) {
    // As much as the buffer's window: what is pushed without a pop has as much room as there.
    if (!port->rings_[c].init(std::size_t{config.sample_rate} * 5 / 4)) return nullptr;
  }
  port->publish();
  return port;
}

template <class Push>
JitterPort::Pushed JitterPort::push_planes(unsigned first_channel, unsigned channels,
                                           std::size_t n, Push&& push) noexcept {
  if (!pushing_.enter()) return Pushed::busy;
  Pushed result = Pushed::ok;
  // acquire: pairs with finish(). Not needed for the promise about what came before it, which is
  // the popping thread's business, but a push after finish() in the same order is refused.
  if (finishing_.load(std::memory_order_acquire)) {
    result = Pushed::finished;
  } else if (n != 0) {
    for (unsigned c = 0; c < channels; ++c) {
      if (rings_[first_channel + c].free_samples() < n) result = Pushed::full;
    }
    if (result == Pushed::ok) {
      for (unsigned c = 0; c < channels; ++c) push(rings_[first_channel + c], c);
    }
  }
  pushing_.leave();
  return result;
}

JitterPort::Pushed JitterPort::push(unsigned first_channel, unsigned channels,
                                    std::uint64_t timestamp, std::int64_t arrival_ns,
                                    const float* samples, std::size_t n) noexcept {
  return push_planes(first_channel, channels, n, [=](ChannelRing& ring, unsigned c) {
    ring.push(timestamp, arrival_ns, samples + c * n, n);
  });
}

JitterPort::Pushed JitterPort::push_s16(unsigned first_channel, unsigned channels,
                                        std::uint64_t timestamp, std::int64_t arrival_ns,
                                        const void* samples, std::size_t n) noexcept {
  const auto* bytes = static_cast<const unsigned char*>(samples);
  return push_planes(first_channel, channels, n, [=](ChannelRing& ring, unsigned c) {
    ring.push_s16(timestamp, arrival_ns, bytes + 2 * c * n, n);
  });
}

JitterPort::Popped JitterPort::pop(std::int64_t now_ns, float* const* planes,
                                   FrameInfo& info) noexcept {
  if (!popping_.enter()) return Popped::busy;
  // acquire: pairs with the release in finish(). Read before the rings, so that all that was
  // pushed before finish() is placed before the buffer is told.
  const bool finishing = finishing_.load(std::memory_order_acquire);
  bool all = true;
  for (unsigned c = 0; c < config_.channels; ++c) {
    all &= buffer_->drain(c, rings_[c], now_ns);
  }
  if (finishing && all) buffer_->finish();
  const bool played =
      planes != nullptr && buffer_->tick(now_ns, planes, info) == JitterBuffer::Tick::frame;
  publish();
  popping_.leave();
  return played ? Popped::frame : Popped::none;
}

void JitterPort::finish() noexcept {
  // release: pairs with the acquire in pop(). Pushes of the calling thread, and those it has seen
  // the end of, come before.
  finishing_.store(true, std::memory_order_release);
}

// ---- the sequence lock ----

void JitterPort::write(std::size_t word, std::uint64_t value) noexcept {
  // release: a reader that sees this value also sees that version_ was odd before it was written.
  words_[word].store(value, std::memory_order_release);
}

void JitterPort::publish() noexcept {
  // relaxed: only the popping role writes the version, and roles hand over with synchronisation.
  const std::uint64_t version = version_.load(std::memory_order_relaxed);
  // relaxed: ordered before the words by write().
  version_.store(version + 1, std::memory_order_relaxed);
  write(0, (buffer_->live() ? 1u : 0u) | (buffer_->ended() ? 2u : 0u));
  write(1, std::bit_cast<std::uint64_t>(buffer_->fill_ms()));
  write(2, std::bit_cast<std::uint64_t>(buffer_->target_ms()));
  write(3, std::bit_cast<std::uint64_t>(buffer_->jitter_ms()));
  write(4, std::bit_cast<std::uint64_t>(buffer_->drift_ppm()));
  write(5, static_cast<std::uint64_t>(buffer_->next_deadline_ns()));
  write(6, buffer_->end_timestamp());
  for (unsigned c = 0; c < config_.channels; ++c) {
    const ChannelCounters& counters = buffer_->counters(c);
    const std::size_t first = kStatWords + kCounterWords * c;
    write(first, counters.received);
    write(first + 1, counters.duplicate);
    write(first + 2, counters.late);
    write(first + 3, counters.lost);
    write(first + 4, counters.concealed);
    write(first + 5, counters.dropped);
  }
  // release: a reader that sees the even version sees all words of it.
  version_.store(version + 2, std::memory_order_release);
}

template <std::size_t N>
std::array<std::uint64_t, N> JitterPort::read(std::size_t first) const noexcept {
  std::array<std::uint64_t, N> values;
  for (;;) {
    // acquire: pairs with the last store of publish(); the words are at least of this version.
    const std::uint64_t before = version_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < N; ++i) {
      // acquire: if a word is newer, the second look at the version tells; and that look cannot
      // come before these loads.
      values[i] = words_[first + i].load(std::memory_order_acquire);
    }
    // relaxed: ordered behind the words by their acquire.
    const std::uint64_t after = version_.load(std::memory_order_relaxed);
    // The writer is done within a microsecond and comes back a tick later: this ends soon.
    if (before == after && before % 2 == 0) return values;
  }
}

JitterStats JitterPort::stats() const noexcept {
  const auto words = read<kStatWords>(0);
  JitterStats stats;
  stats.live = (words[0] & 1) != 0;
  stats.ended = (words[0] & 2) != 0;
  stats.fill_ms = std::bit_cast<double>(words[1]);
  stats.target_ms = std::bit_cast<double>(words[2]);
  stats.jitter_ms = std::bit_cast<double>(words[3]);
  stats.drift_ppm = std::bit_cast<double>(words[4]);
  stats.next_deadline_ns = static_cast<std::int64_t>(words[5]);
  stats.end_timestamp = words[6];
  return stats;
}

ChannelCounters JitterPort::counters(unsigned channel) const noexcept {
  const auto words = read<kCounterWords>(kStatWords + kCounterWords * channel);
  return {words[0], words[1], words[2], words[3], words[4], words[5]};
}

}  // namespace relaycore
