// The lock-free ways between two threads, at full speed, for the thread sanitizer.
//
// Every part moves a fixed amount and checks all of it; none depends on how threads are scheduled.
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "conceal.cpp"
#include "jitter_buffer.cpp"
#include "jitter_port.cpp"
#include "jitter_render.cpp"
#include "pcm_ops.cpp"
#include "pcm_ops_scalar.cpp"
#include "stress.h"

using namespace relaycore;
using namespace relaycore::stress;

namespace {

void ring_between_threads(uint64_t first_index, Placement placement) {
  constexpr uint64_t kTotal = 400'000;
  SpscRing<uint64_t> ring;
  require(ring.init(256, first_index), "ring");
  std::thread producer([&] {
    pin(placement.producer);
    std::minstd_rand random(1);
    for (uint64_t next = 0; next < kTotal;) {
      const size_t n = std::min<size_t>({ring.writable(), kTotal - next, 1 + random() % 100});
      if (n == 0) std::this_thread::yield();
      const auto span = ring.reserve(n);
      for (size_t i = 0; i < span.first_n; ++i) span.first[i] = next++;
      for (size_t i = 0; i < span.second_n; ++i) span.second[i] = next++;
      ring.commit(n);
    }
  });
  std::thread consumer([&] {
    pin(placement.consumer);
    std::minstd_rand random(2);
    for (uint64_t next = 0; next < kTotal;) {
      const size_t n = std::min<size_t>({ring.readable(), kTotal - next, 1 + random() % 100});
      if (n == 0) std::this_thread::yield();
      const auto span = ring.peek(n);
      for (size_t i = 0; i < span.first_n; ++i) require(span.first[i] == next++, "order");
      for (size_t i = 0; i < span.second_n; ++i) require(span.second[i] == next++, "order");
      ring.release(n);
    }
    require(ring.readable() == 0, "nothing left");
  });
  producer.join();
  consumer.join();
}

// One pushes, one pops, two look on.
void port_between_threads(Placement placement) {
  constexpr unsigned kChannels = 3;
  constexpr int64_t kPacket = 160;
  constexpr int64_t kPackets = 3000;
  constexpr int64_t kPacketNs = 20'000'000;
  const auto port = JitterPort::create({kChannels, 8000, 20, 60, 1000});
  require(port != nullptr, "port");
  std::atomic<bool> over{false};
  uint64_t pushed = 0;

  std::thread pusher([&] {
    pin(placement.producer);
    std::vector<float> samples(kChannels * kPacket, 0.5f);
    std::vector<int16_t> pcm(kChannels * kPacket, 16384);
    for (int64_t k = 0; k < kPackets; ++k) {
      const auto timestamp = static_cast<uint64_t>(k * kPacket);
      JitterPort::Pushed result;
      do {
        result = k % 2 ? port->push(0, kChannels, timestamp, k * kPacketNs, samples.data(), kPacket)
                       : port->push_s16(0, kChannels, timestamp, k * kPacketNs, pcm.data(), kPacket);
        if (result == JitterPort::Pushed::full) std::this_thread::yield();
      } while (result == JitterPort::Pushed::full);
      require(result == JitterPort::Pushed::ok, "push");
      ++pushed;
    }
    port->finish();
  });
  std::thread popper([&] {
    pin(placement.consumer);
    std::vector<float> planes(kChannels * kPacket);
    float* at[kChannels] = {planes.data(), planes.data() + kPacket, planes.data() + 2 * kPacket};
    FrameInfo info;
    uint64_t frames = 0;
    for (int64_t now = 0; !port->stats().ended; now += kPacketNs / 4) {
      while (port->pop(now, at, info) == JitterPort::Popped::frame) {
        require(info.index == frames++, "index");
        for (float x : planes) require(std::abs(x) <= 0.5f, "sound");
      }
    }
    over = true;
  });
  auto look = [&] {
    JitterStats last;
    while (!over) {
      const JitterStats stats = port->stats();
      require(stats.end_timestamp >= last.end_timestamp, "stats go forward");
      require(!last.ended || stats.ended, "ended stays");
      for (unsigned c = 0; c < kChannels; ++c) {
        const ChannelCounters counters = port->counters(c);
        require(counters.lost <= counters.concealed, "counters of one moment");
      }
      last = stats;
      std::this_thread::yield();
    }
  };
  std::thread onlooker(look);
  look();
  pusher.join();
  popper.join();
  onlooker.join();
  for (unsigned c = 0; c < kChannels; ++c) {
    const ChannelCounters n = port->counters(c);
    require(n.received + n.duplicate + n.late + n.dropped == pushed * kPacket, "each counted once");
  }
}

// Overlapping calls of one role are refused, never both let in.
void one_thread_per_role(Placement placement) {
  Role role;
  int inside = 0;  // not atomic: the sanitizer sees it when two are in
  std::atomic<int> entered{0};
  auto contend = [&](int cpu) {
    pin(cpu);
    for (int i = 0; i < 50'000; ++i) {
      if (!role.enter()) continue;
      require(++inside == 1, "alone");
      --inside;
      ++entered;
      role.leave();
    }
  };
  std::thread one(contend, placement.producer);
  std::thread other(contend, placement.consumer);
  one.join();
  other.join();
  require(entered > 0, "somebody was let in");
}

}  // namespace

int main() {
  require_two_cpus();
  for (Placement placement : kPlacements) {
    for (uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - 1000, ~uint64_t{0} - 1000})
      ring_between_threads(first, placement);
    port_between_threads(placement);
    one_thread_per_role(placement);
  }
  std::puts("ok");
}
