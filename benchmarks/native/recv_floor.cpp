// The floor of rooms that nobody hears: what it costs to receive their sources' bytes and to drop
// them. One thread, epoll, recv() into one buffer; a canned WebSocket handshake.
//
//   recv_floor --max-seconds 60
//
// It says {"event":"listening",...} and receives until standard input ends or the time is up.
#include <fcntl.h>
#include <sys/epoll.h>

#include <deque>

#include "bench.h"

namespace {

using namespace bench;

struct Source {
  int fd;
  bool registered = false;
  std::string request{};
};

// Answers the handshake, and whatever text comes next with `sourceRegistered`.
void answer(Source& source, std::string_view bytes) {
  source.request.append(bytes);
  const size_t end = source.request.find("\r\n\r\n");
  if (end == std::string::npos) return;
  static const std::string upgraded =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: " +
      std::string(kAccept) + "\r\n\r\n";
  static const std::string registered = R"({"type":"sourceRegistered"})";
  static const std::string text =
      std::string("\x81") + static_cast<char>(registered.size()) + registered;
  const std::string out = source.request.size() == end + 4 ? upgraded : text;
  source.registered = source.request.size() > end + 4;
  if (send(source.fd, out.data(), out.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(out.size()))
    die("send");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  const int64_t end = monotonic_ns() + arguments.number("--max-seconds", 60) * 1'000'000'000;
  raise_descriptor_limit();
  unsigned port = 0;
  const int listener = listen_on_loopback(port, SOCK_NONBLOCK);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  std::deque<Source> sources;  // addresses stay: epoll holds them
  Source accepting{listener}, input{STDIN_FILENO};
  for (Source* each : {&accepting, &input}) {
    epoll_event event{EPOLLIN, {.ptr = each}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, each->fd, &event) != 0) die("epoll_ctl");
  }
  say(R"({"event":"listening","port":%u})", port);

  static char buffer[256 * 1024];
  while (monotonic_ns() < end) {
    epoll_event events[256];
    const int n = epoll_wait(epoll, events, 256, 1000);
    for (int i = 0; i < n; ++i) {
      Source& source = *static_cast<Source*>(events[i].data.ptr);
      if (&source == &input) return 0;
      if (&source == &accepting) {
        for (int fd; (fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
          epoll_event event{EPOLLIN | EPOLLET, {.ptr = &sources.emplace_back(Source{fd})}};
          if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
        }
        continue;
      }
      ssize_t got;
      while ((got = recv(source.fd, buffer, sizeof buffer, 0)) > 0) {
        if (!source.registered) answer(source, {buffer, static_cast<size_t>(got)});
        if (static_cast<size_t>(got) < sizeof buffer) break;
      }
      if (got == 0 || (got < 0 && errno != EAGAIN)) close(source.fd);
    }
  }
  return 0;
}
