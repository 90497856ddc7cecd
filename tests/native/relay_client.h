// The other end of a relay's connections, for native tests: plain sockets, no thread of their own.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "relaycore/live_objects.h"
#include "relaycore/relay.h"
#include "stress.h"

namespace relaycore::client {

using stress::require;
using Clock = std::chrono::steady_clock;

constexpr char kUpgrade[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
constexpr char kAnnounce[] = R"({"type":"streamStarted","timestamp":)";
constexpr unsigned kChannels = 8;
constexpr unsigned kRate = 48'000;
constexpr unsigned kSamplesPerMs = kRate / 1000;

// Waits for what other threads bring about; half a minute is for a machine that is very busy.
template <class F>
void wait_for(const char* what, F&& holds) {
  auto end = Clock::now() + std::chrono::seconds(30);
  while (!holds()) {
    require(Clock::now() < end, what);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

inline uint64_t alive(const char* kind) {
  for (const LiveObjects& figures : live_objects())
    if (std::string_view(figures.kind) == kind) return figures.alive();
  return 0;  // none was ever made
}

// True when as many were freed as made, of every kind; tells which were not.
inline bool nothing_is_left() {
  bool nothing = kCountsObjects;
  for (const LiveObjects& figures : live_objects()) {
    if (figures.alive() == 0) continue;
    nothing = false;
    std::fprintf(stderr, "%s: %lu made, %lu freed\n", figures.kind,
                 static_cast<unsigned long>(figures.made),
                 static_cast<unsigned long>(figures.freed));
  }
  return nothing;
}

// Of this process.
inline unsigned open_descriptors() {
  DIR* folder = ::opendir("/proc/self/fd");
  require(folder != nullptr, "/proc/self/fd");
  unsigned count = 0;
  while (::readdir(folder)) ++count;
  ::closedir(folder);
  return count;
}

inline Subscription everything() {
  Subscription wish;
  for (unsigned c = 0; c < kMaxChannels; ++c) {
    wish.faders[c] = 1;
    wish.pans[c] = 0;
  }
  return wish;
}

inline Subscription mixed() {
  Subscription wish = everything();
  wish.mode = Mode::mix;
  return wish;
}

inline SourceBinding source_binding(uint64_t connection, uint64_t room, uint16_t stream) {
  return {connection, room, stream, {Encoding::s16le, kChannels, kRate}, 5, 30, kAnnounce};
}

// Two ends that are connected; ours does not block.
struct Ends {
  int relays = -1;
  int ours = -1;
};
inline Ends connected() {
  int ends[2];
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
  fcntl(ends[1], F_SETFL, fcntl(ends[1], F_GETFL) | O_NONBLOCK);
  return {ends[0], ends[1]};
}

// As above, over TCP on this machine. Ours takes little that it does not read.
inline Ends connected_over_tcp() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* name = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  require(::bind(listener, name, size) == 0 && ::listen(listener, 1) == 0 &&
              ::getsockname(listener, name, &size) == 0,
          "a port to listen at");
  Ends ends;
  ends.ours = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int few = 4096;
  require(::setsockopt(ends.ours, SOL_SOCKET, SO_RCVBUF, &few, sizeof few) == 0 &&
              ::connect(ends.ours, name, size) == 0,
          "connect");
  ends.relays = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  require(ends.relays >= 0, "accept");
  ::close(listener);
  fcntl(ends.ours, F_SETFL, fcntl(ends.ours, F_GETFL) | O_NONBLOCK);
  return ends;
}

// A millisecond of every channel, masked with zeros. False: the socket takes no more now; a packet
// that is cut in half ends the connection.
inline bool send_packet(int fd, uint64_t timestamp) {
  uint8_t message[8 + kHeaderBytes + kChannels * kSamplesPerMs * 2] = {};
  size_t payload = sizeof message - 8;
  message[0] = 0x82;
  message[1] = 0x80 | 126;
  message[2] = static_cast<uint8_t>(payload >> 8);
  message[3] = static_cast<uint8_t>(payload);
  PacketHeader header{1, 1, 0, 0, 0, kChannels, 0, kSamplesPerMs, timestamp, 1};
  write_packet_header(message + 8, header);
  ssize_t sent = ::send(fd, message, sizeof message, MSG_NOSIGNAL);
  if (sent > 0 && sent < static_cast<ssize_t>(sizeof message)) ::shutdown(fd, SHUT_RDWR);
  return sent == static_cast<ssize_t>(sizeof message);
}

inline void send_text(int fd) {
  const uint8_t text[] = {0x81, 0x82, 0, 0, 0, 0, '{', '}'};
  [[maybe_unused]] ssize_t n = ::send(fd, text, sizeof text, MSG_NOSIGNAL);
}

// A text without mask.
inline void break_framing(int fd) {
  const uint8_t broken[] = {0x81, 0x02, '{', '}'};
  [[maybe_unused]] ssize_t n = ::send(fd, broken, sizeof broken, MSG_NOSIGNAL);
}

// Reads what is there and answers a ping, which stands at the end of what is sent together.
// Bytes read; 0: nothing now; -1: the connection has ended.
inline long drain(int fd) {
  static thread_local uint8_t buffer[65536];
  ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
  if (n == 0) return -1;
  const uint8_t* tail = buffer + n - 10;
  if (n >= 10 && tail[0] == 0x89 && tail[1] == 8) {
    uint8_t pong[14] = {0x8a, 0x88};
    std::memcpy(pong + 6, tail + 2, 8);
    [[maybe_unused]] ssize_t sent = ::send(fd, pong, sizeof pong, MSG_NOSIGNAL);
  }
  return n;
}

}  // namespace relaycore::client
