// The way of one channel's packets from the thread that reads the source to the thread that ticks.
//
// A record is a header (timestamp, arrival, length) and its samples, one behind the other in a
// ring of floats; it is committed as a whole, so the consumer never sees half of one. The header
// travels in float words by memcpy: the words are never looked at as floats.
//
// One producer thread, one consumer thread, as for SpscRing. No allocation after init().
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "relaycore/live_objects.h"
#include "relaycore/pcm_ops.h"
#include "relaycore/spsc_ring.h"

namespace relaycore {

class ChannelRing : Counted<"ChannelRing"> {
 public:
  // Room for at least `capacity_samples` of samples in records (a record adds five words).
  bool init(std::size_t capacity_samples, std::uint64_t first_index = 0) noexcept {
    if (capacity_samples == 0 || capacity_samples > kMaxSamples) return false;
    return ring_.init(capacity_samples + kHeaderWords, first_index);
  }

  // ---- producer ----

  // The longest record that fits now, in samples; 0 if none does.
  std::size_t free_samples() noexcept {
    const std::size_t words = ring_.writable();
    return words > kHeaderWords ? words - kHeaderWords : 0;
  }

  // Copies one packet in. False, and nothing written, when it does not fit. n >= 1.
  // `samples` may be at any address: they are taken right out of a message.
  bool push(std::uint64_t timestamp, std::int64_t arrival_ns, const void* samples,
            std::size_t n) noexcept {
    const auto* bytes = static_cast<const unsigned char*>(samples);
    return write(timestamp, arrival_ns, n, [bytes](std::size_t at, std::size_t count, float* to) {
      std::memcpy(to, bytes + at * sizeof(float), count * sizeof(float));
    });
  }

  // The same from little-endian 16-bit samples at any address, converted right into the ring.
  bool push_s16(std::uint64_t timestamp, std::int64_t arrival_ns, const void* pcm,
                std::size_t n) noexcept {
    const auto* bytes = static_cast<const unsigned char*>(pcm);
    return write(timestamp, arrival_ns, n, [bytes](std::size_t at, std::size_t count, float* to) {
      pcm_ops().s16_to_f32(bytes + 2 * at, count, to);
    });
  }

  // ---- consumer ----

  // Hands every record that was there when the call began to
  //   bool f(timestamp, arrival_ns, const float* a, na, const float* b, nb)
  // oldest first; the samples are a's, then b's, borrowed for the time of the call. False leaves
  // that record, and those behind it, for another call. Returns whether none was left. Bounded: what
  // arrives meanwhile waits for the next call.
  template <class F>
  bool drain(F&& f) {
    std::size_t words = ring_.readable();
    while (words > kHeaderWords) {
      const Header header = read_header();
      const std::size_t record = kHeaderWords + header.length;
      const auto span = ring_.peek(record);
      bool taken;
      if (span.first_n >= kHeaderWords) {
        taken = f(header.timestamp, header.arrival_ns,
                  static_cast<const float*>(span.first + kHeaderWords),
                  span.first_n - kHeaderWords, static_cast<const float*>(span.second),
                  span.second_n);
      } else {  // the header itself goes over the end of the memory
        const std::size_t rest = kHeaderWords - span.first_n;
        taken = f(header.timestamp, header.arrival_ns,
                  static_cast<const float*>(span.second + rest), span.second_n - rest,
                  static_cast<const float*>(nullptr), std::size_t{0});
      }
      if (!taken) return false;
      ring_.release(record);
      words -= record;
    }
    return true;
  }

 private:
  struct Header {
    std::uint64_t timestamp;
    std::int64_t arrival_ns;
    std::uint32_t length;
  };
  static constexpr std::size_t kHeaderWords = 5;
  static constexpr std::size_t kMaxSamples = std::size_t{1} << 28;
  static_assert(sizeof(float) == 4);

  template <class Fill>
  bool write(std::uint64_t timestamp, std::int64_t arrival_ns, std::size_t n,
             Fill&& fill) noexcept {
    if (n == 0 || n > kMaxSamples) return false;
    const auto span = ring_.reserve(kHeaderWords + n);
    if (span.first_n == 0) return false;
    unsigned char header[kHeaderWords * sizeof(float)];
    const auto length = static_cast<std::uint32_t>(n);
    std::memcpy(header, &timestamp, 8);
    std::memcpy(header + 8, &arrival_ns, 8);
    std::memcpy(header + 16, &length, 4);
    if (span.first_n >= kHeaderWords) {
      std::memcpy(span.first, header, sizeof header);
      const std::size_t head = span.first_n - kHeaderWords;
      if (head != 0) fill(0, head, span.first + kHeaderWords);
      if (span.second_n != 0) fill(head, span.second_n, span.second);
    } else {
      const std::size_t words = span.first_n;
      const std::size_t rest = kHeaderWords - words;
      std::memcpy(span.first, header, words * sizeof(float));
      std::memcpy(span.second, header + words * sizeof(float), rest * sizeof(float));
      fill(0, n, span.second + rest);
    }
    ring_.commit(kHeaderWords + n);
    return true;
  }

  Header read_header() noexcept {
    const auto span = ring_.peek(kHeaderWords);
    unsigned char bytes[kHeaderWords * sizeof(float)];
    std::memcpy(bytes, span.first, span.first_n * sizeof(float));
    if (span.second_n != 0) {
      std::memcpy(bytes + span.first_n * sizeof(float), span.second,
                  span.second_n * sizeof(float));
    }
    Header header;
    std::memcpy(&header.timestamp, bytes, 8);
    std::memcpy(&header.arrival_ns, bytes + 8, 8);
    std::memcpy(&header.length, bytes + 16, 4);
    return header;
  }

  SpscRing<float> ring_;
};

}  // namespace relaycore
