// Every kernel table that this CPU runs against the scalar one, without Python: for sanitizers and
// for emulated machines. .ci/test-kernels builds and runs it. All memory is of exact size, so
// that the address sanitizer sees a read or write beyond it.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "relaycore/pcm_ops.h"

using relaycore::PcmOps;

namespace {

std::mt19937 random_bits(1);

// A message that data stands in the middle of, at an odd address if `offset` is odd.
struct Message {
  Message(size_t offset, size_t bytes) : offset(offset), memory(offset + bytes, 0xA5) {}
  uint8_t* data() { return memory.data() + offset; }
  bool operator==(const Message&) const = default;

  size_t offset;
  std::vector<uint8_t> memory;
};

template <class T>
struct Planes {
  Planes(unsigned channels, size_t n) : samples(channels, std::vector<T>(n)) {
    for (std::vector<T>& plane : samples) at.push_back(plane.data());
  }
  const T* const* in() const { return at.data(); }

  std::vector<std::vector<T>> samples;
  std::vector<T*> at;
};

float any_float() {
  static constexpr float kSpecial[] = {0.0f,   -0.0f,  1.0f,   -1.0f,     0.99999f, 2.0f,
                                       -2.0f,  1e30f,  -1e30f, 65536.0f,  NAN,      INFINITY,
                                       -INFINITY, 0.5f / 32768, 1.5f / 32768, -2.5f / 32768};
  if (random_bits() % 16 == 0) return kSpecial[random_bits() % std::size(kSpecial)];
  return std::uniform_real_distribution<float>(-1.1f, 1.1f)(random_bits);
}

float any_gain() {
  return random_bits() % 3 ? std::uniform_real_distribution<float>(-1, 4)(random_bits) : 0.0f;
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}

template <class T>
bool same(const Planes<T>& a, const Planes<T>& b) {
  for (size_t c = 0; c < a.samples.size(); ++c) {
    for (size_t i = 0; i < a.samples[c].size(); ++i) {
      if constexpr (sizeof(T) == sizeof(float)) {
        if (!same(a.samples[c][i], b.samples[c][i])) return false;
      } else if (a.samples[c][i] != b.samples[c][i]) {
        return false;
      }
    }
  }
  return true;
}

// Calls f(ops, scalar, channels, n, offset) for every table and many sizes.
template <class F>
void each_case(F f) {
  const auto tables = relaycore::pcm_ops_available();
  for (const PcmOps* ops : tables) {
    for (unsigned channels = 0; channels <= 64; ++channels) {
      for (size_t n : {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 131}) {
        const int before = check::failures;
        f(*ops, *tables.back(), channels, n, (channels + n) % 18);
        if (check::failures != before) {
          const std::string what = std::string("  with ") + ops->name;
          check::report(__FILE__, __LINE__,
                        what + ", " + std::to_string(channels) + " x " + std::to_string(n));
          return;
        }
      }
    }
  }
}

TEST(interleaving) {
  each_case([](const PcmOps& ops, const PcmOps& scalar, unsigned channels, size_t n, size_t at) {
    Planes<float> planes(channels, n);
    Planes<int16_t> shorts(channels, n);
    for (auto& plane : planes.samples)
      for (float& x : plane) x = any_float();
    for (auto& plane : shorts.samples)
      for (int16_t& x : plane) x = static_cast<int16_t>(random_bits());

    Message f32[2]{{at, 4 * n * channels}, {at, 4 * n * channels}};
    Message s16[2]{{at, 2 * n * channels}, {at, 2 * n * channels}};
    Message s16_s16[2]{{at, 2 * n * channels}, {at, 2 * n * channels}};
    const PcmOps* both[] = {&scalar, &ops};
    Planes<float> apart_f32[2]{{channels, n}, {channels, n}};
    Planes<float> apart_s16[2]{{channels, n}, {channels, n}};
    Planes<int16_t> apart_s16_s16[2]{{channels, n}, {channels, n}};
    for (int k = 0; k < 2; ++k) {
      both[k]->interleave_f32(planes.in(), channels, n, f32[k].data());
      both[k]->interleave_s16(planes.in(), channels, n, s16[k].data());
      both[k]->interleave_s16_s16(shorts.in(), channels, n, s16_s16[k].data());
      for (unsigned c = 2; c < channels; c += 3) apart_s16[k].at[c] = nullptr;
      both[k]->deinterleave_f32(f32[k].data(), channels, n, apart_f32[k].at.data());
      both[k]->deinterleave_s16(s16[k].data(), channels, n, apart_s16[k].at.data());
      both[k]->deinterleave_s16_s16(s16_s16[k].data(), channels, n, apart_s16_s16[k].at.data());
    }
    CHECK(f32[0] == f32[1]);
    CHECK(s16[0] == s16[1]);
    CHECK(s16_s16[0] == s16_s16[1]);
    CHECK(same(apart_f32[1], planes));
    CHECK(same(apart_s16[0], apart_s16[1]));
    CHECK(same(apart_s16_s16[1], shorts));
  });
}

void check_mixing(const PcmOps& ops, const PcmOps& scalar, unsigned channels, size_t n,
                  unsigned outputs) {
  Planes<float> planes(channels, n);
  for (auto& plane : planes.samples)
    for (float& x : plane) x = any_float();
  std::vector<float> from(outputs * channels), to(outputs * channels);
  for (float& gain : from) gain = any_gain();
  for (float& gain : to) gain = any_gain();

  Planes<float> still[2]{{outputs, n}, {outputs, n}}, moving[2]{{outputs, n}, {outputs, n}};
  const PcmOps* both[] = {&scalar, &ops};
  for (int k = 0; k < 2; ++k) {
    both[k]->mix(planes.in(), channels, n, from.data(), outputs, still[k].at.data());
    both[k]->mix_ramp(planes.in(), channels, n, from.data(), to.data(), outputs,
                      moving[k].at.data());
  }
  CHECK(same(still[0], still[1]));
  CHECK(same(moving[0], moving[1]));
}

TEST(mixing) {
  each_case([](const PcmOps& ops, const PcmOps& scalar, unsigned channels, size_t n, size_t at) {
    check_mixing(ops, scalar, channels, n, at % 4);
  });
}

TEST(mixing_more_channels_than_a_room_has) {
  const auto tables = relaycore::pcm_ops_available();
  for (const PcmOps* ops : tables)
    for (unsigned channels : {65, 128, 129, 300})
      for (size_t n : {3, 33, 131}) check_mixing(*ops, *tables.back(), channels, n, 1 + n % 3);
}

TEST(conversion_and_levels) {
  each_case([](const PcmOps& ops, const PcmOps& scalar, unsigned channels, size_t n, size_t at) {
    const size_t length = n * (1 + channels % 4);
    Planes<float> signal(1, length), back[2]{{1, length}, {1, length}};
    for (float& x : signal.samples[0]) x = any_float();
    Message s16[2]{{at, 2 * length}, {at, 2 * length}};
    float peak[2];
    double squares[2];
    const PcmOps* both[] = {&scalar, &ops};
    for (int k = 0; k < 2; ++k) {
      both[k]->f32_to_s16(signal.at[0], length, s16[k].data());
      both[k]->s16_to_f32(s16[k].data(), length, back[k].at[0]);
      both[k]->levels(signal.at[0], length, &peak[k], &squares[k]);
    }
    CHECK(s16[0] == s16[1]);
    CHECK(same(back[0], back[1]));
    CHECK(same(peak[0], peak[1]));
    CHECK(squares[0] == squares[1] || std::abs(squares[1] / squares[0] - 1) < 1e-12);
  });
}

TEST(the_best_table_runs_unless_another_is_forced) {
  const auto tables = relaycore::pcm_ops_available();
  CHECK_EQ(std::string(tables.back()->name), "scalar");
  CHECK(&relaycore::pcm_ops() == tables.front());
  for (const PcmOps* ops : tables) {
    CHECK(relaycore::force_pcm_ops(ops->name));
    CHECK(&relaycore::pcm_ops() == ops);
  }
  CHECK(!relaycore::force_pcm_ops("none such"));
  CHECK(relaycore::force_pcm_ops(nullptr));
  CHECK(&relaycore::pcm_ops() == tables.front());
  for (const PcmOps* ops : tables) std::printf("     %s\n", ops->name);
}

}  // namespace
