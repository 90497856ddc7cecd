// What the floors that send share: they listen, take connections with a canned WebSocket handshake (so
// that the load client is the same for every subject), and make messages that look like frames.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include <vector>

#include "stream.h"

namespace bench {

// Listens at a port of the loopback, which it says, with the clock that frames are stamped with: as the
// relay's, Unix time that is never stepped.
inline int listen_and_say(int64_t clock_offset_ns) {
  unsigned port = 0;
  const int listener = listen_on_loopback(port);
  say(R"({"event":"listening","port":%u,"clock_offset_us":%lld})", port,
      static_cast<long long>(clock_offset_ns / 1000));
  return listener;
}

// Takes one connection: reads its request, answers, and says that it is registered.
inline bool take(int listener, Stream& stream) {
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

// A WebSocket message that goes out every tick.
class Message {
 public:
  explicit Message(size_t length) : bytes_{0x82} {
    if (length < 126) {
      bytes_.push_back(static_cast<uint8_t>(length));
    } else {
      const int width = length <= 0xFFFF ? 2 : 8;
      bytes_.push_back(width == 2 ? 126 : 127);
      for (int i = width - 1; i >= 0; --i)
        bytes_.push_back(static_cast<uint8_t>(length >> (8 * i)));
    }
    header_ = bytes_.size();
    bytes_.resize(header_ + length, 0x5A);
    std::memset(&bytes_[header_], 0, kFrameHeader);
    bytes_[header_] = 1;
    bytes_[header_ + 1] = kKindFrame;
  }

  void stamp(uint32_t sequence, int64_t clock_ns) {
    store_le<uint32_t>(&bytes_[header_ + 8], sequence);
    store_le<int64_t>(&bytes_[header_ + 24], clock_ns / 1000);
  }

  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
  size_t header_;  // where its 32 bytes start
};

// That of the relay's threads, so that what else runs here meets both alike.
inline void use_realtime_scheduling() {
  constexpr int kRealtimePriority = 10;
  sched_param priority{};
  priority.sched_priority = kRealtimePriority;
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);  // refused: as any other process
}

}  // namespace bench
