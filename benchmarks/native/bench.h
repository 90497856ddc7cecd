// What the floors share: clocks, arguments, the canned WebSocket handshake, the fields of a frame, and
// the lines in which they speak with the harness.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>

namespace bench {

// The load client's key is fixed, so that the floor can answer without SHA-1 (the example of RFC 6455,
// section 1.3).
inline constexpr std::string_view kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

inline constexpr size_t kFrameHeader = 32;  // of every binary message, docs/protocol.md section 2
inline constexpr uint8_t kKindFrame = 2;

[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? std::strerror(errno) : "");
  std::exit(2);
}

inline int64_t clock_ns(clockid_t clock) {
  timespec t{};
  if (clock_gettime(clock, &t) != 0) return -1;
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}
inline int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

inline void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
}

// Listens at a port of the loopback that is free, and tells which.
inline int listen_on_loopback(unsigned& port, int flags = 0) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener, 1024) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    die("listen");
  port = ntohs(address.sin_port);
  return listener;
}

template <class T>
void store_le(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof value);
}
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are written in place");

// `--name value` pairs.
class Arguments {
 public:
  Arguments(int argc, char** argv) : argc_(argc), argv_(argv) {
    errno = 0;
    if (argc % 2 == 0) die("arguments come as --name value");
  }
  const char* text(std::string_view name, const char* fallback) const {
    for (int i = 1; i + 1 < argc_; i += 2)
      if (argv_[i] == name) return argv_[i + 1];
    return fallback;
  }
  int64_t number(std::string_view name, int64_t fallback) const {
    const char* value = text(name, nullptr);
    if (value == nullptr) return fallback;
    char* end = nullptr;
    errno = 0;
    const int64_t parsed = std::strtoll(value, &end, 10);
    if (*value == '\0' || *end != '\0') die("a number is needed");
    return parsed;
  }

 private:
  int argc_;
  char** argv_;
};

// One JSON object on a line of its own, flushed: the harness waits for it.
[[gnu::format(printf, 1, 2)]] inline void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::putchar('\n');
  std::fflush(stdout);
}

}  // namespace bench
