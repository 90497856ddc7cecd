// The parts that packets pass on their way to a frame: rings of samples, records and bits, and what
// stands in for sound that did not come. Each against something that does the same the long way.
#include <cmath>
#include <deque>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "conceal.cpp"
#include "pcm_ops.cpp"
#include "pcm_ops_scalar.cpp"
#include "relaycore/bit_ring.h"
#include "relaycore/block.h"
#include "relaycore/channel_ring.h"
#include "relaycore/clock.h"

using namespace relaycore;

// Nothing is posted here; the relay's own are in relay_room.cpp.
void BlockPost::run(RelayThread&) {}
void BlockPost::dispose() noexcept {}

namespace {

constexpr uint64_t kBeforeWrap[] = {0, (uint64_t{1} << 32) - 37, ~uint64_t{0} - 37};

struct Record {
  uint64_t timestamp;
  int64_t arrival_ns;
  std::vector<float> samples;
};

bool take(ChannelRing& ring, std::deque<Record>& expected) {
  bool good = true;
  ring.drain([&](uint64_t timestamp, int64_t arrival_ns, const float* a, size_t a_n, const float* b,
                 size_t b_n) {
    std::vector<float> samples(a, a + a_n);
    if (b_n != 0) samples.insert(samples.end(), b, b + b_n);
    good = good && !expected.empty() && expected.front().timestamp == timestamp &&
           expected.front().arrival_ns == arrival_ns && expected.front().samples == samples;
    if (!expected.empty()) expected.pop_front();
    return true;
  });
  return good && expected.empty();
}

}  // namespace

TEST(records_come_out_as_they_went_in_wherever_the_memory_ends) {
  std::mt19937_64 random(1);
  for (uint64_t first_index : kBeforeWrap) {
    ChannelRing ring;
    CHECK(ring.init(59, first_index));  // 64 words: every header and record straddles in time
    std::deque<Record> expected;
    for (int round = 0; round < 20000; ++round) {
      const size_t n = 1 + random() % 40;
      Record record{random(), static_cast<int64_t>(random()), std::vector<float>(n)};
      std::vector<int16_t> pcm(n);
      for (size_t i = 0; i < n; ++i) {
        pcm[i] = static_cast<int16_t>(random());
        record.samples[i] = static_cast<float>(pcm[i]) / 32768;
      }
      const size_t room = ring.free_samples();
      const bool pushed =
          random() % 2
              ? ring.push(record.timestamp, record.arrival_ns, record.samples.data(), n)
              : ring.push_s16(record.timestamp, record.arrival_ns, pcm.data(), n);
      CHECK_EQ(pushed, n <= room);
      if (pushed) expected.push_back(std::move(record));
      if (random() % 3 == 0) CHECK(take(ring, expected));
    }
    CHECK(take(ring, expected));
    CHECK_EQ(ring.free_samples(), size_t{59});
  }
}

TEST(a_record_that_is_not_taken_stays_with_those_behind_it) {
  for (uint64_t first_index : kBeforeWrap) {
    ChannelRing ring;
    CHECK(ring.init(59, first_index));
    uint64_t pushed = 0, taken = 0;
    const std::vector<float> samples(7, 0.5f);
    for (int round = 0; round < 1000; ++round) {
      while (ring.push(pushed, 0, samples.data(), samples.size())) ++pushed;
      const uint64_t wanted = taken + static_cast<uint64_t>(round) % 5;
      const bool all = ring.drain([&](uint64_t timestamp, int64_t, const float*, size_t a_n,
                                      const float*, size_t b_n) {
        CHECK_EQ(timestamp, taken);
        CHECK_EQ(a_n + b_n, samples.size());
        if (taken == wanted) return false;
        ++taken;
        return true;
      });
      CHECK_EQ(all, taken == pushed);
      CHECK_EQ(taken, std::min(wanted, pushed));
    }
  }
}

TEST(a_record_that_can_never_fit_is_refused) {
  ChannelRing ring;
  CHECK(!ring.push(0, 0, nullptr, 1));  // before init
  CHECK(!ring.init(0));
  CHECK(ring.init(59));
  CHECK(!ring.init(59));
  std::vector<float> samples(61);
  CHECK(!ring.push(0, 0, samples.data(), 0));
  CHECK(!ring.push(0, 0, samples.data(), 60));
  CHECK(!ring.push(0, 0, samples.data(), std::numeric_limits<size_t>::max()));
  CHECK(ring.push(0, 0, samples.data(), 59));
  CHECK_EQ(ring.free_samples(), size_t{0});
}

TEST(bits_are_those_of_a_plain_array) {
  constexpr size_t kCapacity = 256;
  std::mt19937_64 random(2);
  for (uint64_t first : kBeforeWrap) {
    uint64_t words[BitRing::words_for(kCapacity)];
    BitRing ring(words, kCapacity);
    std::vector<bool> plain(kCapacity);
    auto place = [](uint64_t position) { return static_cast<size_t>(position % kCapacity); };
    for (int round = 0; round < 20000; ++round) {
      const uint64_t position = first + random() % 100;
      const size_t n = random() % (kCapacity + 1);
      if (random() % 2) {
        size_t fresh = 0;
        for (size_t i = 0; i < n; ++i) {
          fresh += !plain[place(position + i)];
          plain[place(position + i)] = true;
        }
        CHECK_EQ(ring.set(position, n), fresh);
      } else {
        for (size_t i = 0; i < n; ++i) plain[place(position + i)] = false;
        ring.clear(position, n);
      }
      const uint64_t at = first + random() % 300;
      const size_t limit = 1 + random() % kCapacity;
      size_t run = 0;
      while (run < limit && plain[place(at + run)] == plain[place(at)]) ++run;
      CHECK_EQ(ring.run(at, limit), run);
      CHECK_EQ(ring.test(at), static_cast<bool>(plain[place(at)]));
    }
    ring.reset();
    CHECK_EQ(ring.run(first, kCapacity), kCapacity);
    CHECK(!ring.test(first));
  }
}

TEST(blocks_are_held_by_number_for_two_seconds) {
  auto info = Ref<StreamInfo>::adopt(new StreamInfo);
  info->frame_ms = 20;
  auto block_of = [&](uint64_t number) {
    auto block = Block::create(1, 960, 1);
    block->stream = info;
    block->number = number;
    block->time_us = 1'000'000;
    return block;
  };
  for (uint64_t first : kBeforeWrap) {
    BlockRing ring;
    ring.begin_at(first);
    CHECK_EQ(ring.oldest(), first);
    for (uint64_t i = 0; i < 1200; ++i) {
      CHECK_EQ(ring.head(), first + i);
      ring.append(block_of(first + i));
      uint64_t held = std::min<uint64_t>(i + 1, kRetainMs / 20);
      CHECK_EQ(ring.head() - ring.oldest(), held);
      for (uint64_t n = ring.oldest(); n != ring.head(); ++n) CHECK_EQ(ring[n]->number, n);
    }
    CHECK(ring.is_older_than(1000, 2'000'001));
    CHECK(!ring.is_older_than(1000, 2'000'000));
    ring.append(block_of(first + 1300));  // what lies between is lost
    CHECK_EQ(ring.oldest(), first + 1300);
    CHECK_EQ(ring.head(), first + 1301);
    ring.clear();
    CHECK_EQ(ring.oldest(), ring.head());
  }
}

TEST(sound_goes_on_without_a_step_and_never_louder) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> noise(-1, 1);
  for (size_t n : {1u, 2u, 63u, 191u, 192u, 200u, 256u, 1411u, 1536u, 3072u, 5000u}) {
    for (size_t count : {1u, 8u, 80u, 480u, 960u}) {
      for (int kind = 0; kind < 3; ++kind) {
        std::vector<float> history(n);
        for (size_t i = 0; i < n; ++i) {
          history[i] = kind == 0   ? noise(random)
                       : kind == 1 ? 0.5f * std::sin(0.05f * static_cast<float>(i))
                                   : 0.0f;
        }
        float peak = 0;
        for (float x : history) peak = std::max(peak, std::abs(x));
        std::vector<float> out(count + 1, 42.0f);
        extrapolate(history.data(), n, out.data(), count);
        for (size_t i = 0; i < count; ++i) CHECK(std::abs(out[i]) <= peak);
        CHECK_EQ(out[count], 42.0f);
        if (kind == 1) CHECK(std::abs(out[0] - history[n - 1]) < 0.06f);
      }
    }
  }
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(), -3e38f};
  for (float value : bad) {
    std::vector<float> history(1000, 0.5f);
    history[700] = value;
    std::vector<float> out(480, 42.0f);
    extrapolate(history.data(), history.size(), out.data(), out.size());
    for (float x : out) CHECK_EQ(x, 0.0f);
  }
}

TEST(a_peak_is_held_for_half_a_minute) {
  PeakHold peak;
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t now = std::numeric_limits<int64_t>::max() - 5 * kSecond;  // and over the end
  auto pass = [&](int64_t seconds) {
    for (int64_t i = 0; i < seconds; ++i) {
      now = later_by(now, kSecond);
      peak.advance(now);
    }
  };
  peak.advance(now);
  peak.put(7);
  pass(29);
  CHECK_EQ(peak.peak(), 7.0);
  pass(12);
  CHECK_EQ(peak.peak(), 0.0);
  peak.put(3);
  now = later_by(now, 3600 * kSecond);
  peak.advance(now);
  CHECK_EQ(peak.peak(), 0.0);
  peak.put(2);
  peak.advance(later_by(now, -kSecond));  // a clock that went back begins anew
  CHECK_EQ(peak.peak(), 2.0);
}
