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
// the time is up. A connection whose socket is full is closed and counted as refused. It runs under
// the scheduling that the relay's threads ask for, so that what else runs here meets both alike.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include <vector>

#include "stream.h"

namespace {

using namespace bench;

constexpr int kRealtimePriority = 10;  // that of the relay

struct Options {
  size_t listeners, message;
  int64_t tick_us, max_seconds;
};

// Takes one connection: reads its request, answers, and says that it is registered.
bool take(int listener, Stream& stream) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) return false;
  stream.open(fd);
  const timeval patience{5, 0};
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  std::string request;
  char buffer[2048];
  bool usable = stream.handshake() == 1;
  while (usable && request.find("\r\n\r\n") == std::string::npos && request.size() < 8192) {
    const ssize_t n = stream.recv(buffer, sizeof buffer);
    if (n <= 0) break;
    request.append(buffer, static_cast<size_t>(n));
  }
  std::string answer =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: " +
      std::string(kAccept) + "\r\n\r\n";
  const std::string registered = R"({"type":"listenerRegistered"})";
  answer += '\x81';
  answer += static_cast<char>(registered.size());
  answer += registered;
  usable = usable &&
           stream.send(answer.data(), answer.size()) == static_cast<ssize_t>(answer.size());
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  if (!usable) stream.close();
  return usable;
}

// The WebSocket message that goes out every tick; `header` is where its 32 bytes start.
std::vector<uint8_t> compose(size_t message, size_t& header) {
  std::vector<uint8_t> bytes{0x82};
  if (message < 126) {
    bytes.push_back(static_cast<uint8_t>(message));
  } else {
    const int width = message <= 0xFFFF ? 2 : 8;
    bytes.push_back(width == 2 ? 126 : 127);
    for (int i = width - 1; i >= 0; --i) bytes.push_back(static_cast<uint8_t>(message >> (8 * i)));
  }
  header = bytes.size();
  bytes.resize(header + message, 0x5A);
  std::memset(&bytes[header], 0, kFrameHeader);
  bytes[header] = 1;
  bytes[header + 1] = kKindFrame;
  return bytes;
}

void use_realtime_scheduling() {
  sched_param priority{};
  priority.sched_priority = kRealtimePriority;
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);  // refused: as any other process
}

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
  // The clock that frames are stamped with, as the relay's: Unix time, never stepped.
  const int64_t clock_offset = clock_ns(CLOCK_REALTIME) - monotonic_ns();

  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener, 1024) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    die("listen");
  say(R"({"event":"listening","port":%u,"clock_offset_us":%lld})", ntohs(address.sin_port),
      static_cast<long long>(clock_offset / 1000));

  Stream::configure(arguments);
  std::vector<Stream> connections;
  while (connections.size() < options.listeners) {
    pollfd wait[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    const int64_t left_ms = (end - monotonic_ns()) / 1'000'000;
    if (left_ms <= 0 || poll(wait, 2, static_cast<int>(left_ms)) <= 0 || wait[1].revents) return 0;
    if (Stream stream; take(listener, stream)) connections.push_back(stream);
  }

  use_realtime_scheduling();
  size_t header = 0;
  std::vector<uint8_t> bytes = compose(options.message, header);
  uint64_t sent = 0, refused = 0;
  int64_t deadline = monotonic_ns();
  for (uint32_t sequence = 0; deadline < end && !told_to_stop(); ++sequence) {
    const timespec at{deadline / 1'000'000'000, deadline % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
    }
    store_le<uint32_t>(&bytes[header + 8], sequence);
    store_le<int64_t>(&bytes[header + 24], (deadline + clock_offset) / 1000);
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
