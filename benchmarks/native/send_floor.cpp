// The floor: what the same bytes cost when nothing is done but send() them. One thread, one plain
// loop over N connections every tick; no queue, no protocol, nothing read. A relay that sends each
// listener each frame by itself cannot be cheaper than this; one that groups frames can.
//
//   send_floor --listeners 1000 --message 3872 --tick-us 20000 --max-seconds 60
//
// Built with BENCH_TLS it sends by SSL_write(), with --certificate and --key (stream.h).
//
// It says {"event":"listening",...}, takes exactly N connections with a canned WebSocket handshake
// (so that the load client is the same for every subject), then sends until standard input ends or
// the time is up. A connection whose socket is full is closed and counted as refused.
#include "floor.h"

namespace {

using namespace bench;

struct Options {
  size_t listeners, message;
  int64_t tick_us, max_seconds;
};

bool told_to_stop() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  return poll(&input, 1, 0) > 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  const Options options{static_cast<size_t>(arguments.number("--listeners", 1000)),
                        static_cast<size_t>(arguments.number("--message", 3872)),
                        arguments.number("--tick-us", 20'000),
                        arguments.number("--max-seconds", 60)};
  errno = 0;
  if (options.message < kFrameHeader) die("a message has 32 bytes at least");
  raise_descriptor_limit();
  const int64_t started = monotonic_ns();
  const int64_t end = started + options.max_seconds * 1'000'000'000;
  const int64_t clock_offset = clock_ns(CLOCK_REALTIME) - monotonic_ns();
  const int listener = listen_and_say(clock_offset);

  Stream::configure(arguments);
  std::vector<Stream> connections;
  while (connections.size() < options.listeners) {
    pollfd wait[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    const int64_t left_ms = (end - monotonic_ns()) / 1'000'000;
    if (left_ms <= 0 || poll(wait, 2, static_cast<int>(left_ms)) <= 0 || wait[1].revents) return 0;
    if (Stream stream; take(listener, stream)) connections.push_back(stream);
  }

  use_realtime_scheduling();
  Message message(options.message);
  const std::vector<uint8_t>& bytes = message.bytes();
  uint64_t sent = 0, refused = 0;
  int64_t deadline = monotonic_ns();
  for (uint32_t sequence = 0; deadline < end && !told_to_stop(); ++sequence) {
    const timespec at{deadline / 1'000'000'000, deadline % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
    }
    message.stamp(sequence, deadline + clock_offset);
    for (Stream& stream : connections) {
      if (stream.fd() < 0) continue;
      if (stream.send(bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size())) {
        ++sent;
      } else {  // a part would have to be kept, which the floor does not do
        ++refused;
        stream.close();
      }
    }
    deadline += options.tick_us * 1000;
  }
  const double cpu = static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID)) / 1e3;
  say(R"({"event":"done","sent":%llu,"refused":%llu,"cpu_us_per_frame":%.4f})",
      static_cast<unsigned long long>(sent), static_cast<unsigned long long>(refused),
      sent ? cpu / static_cast<double>(sent) : 0.0);
  return 0;
}
