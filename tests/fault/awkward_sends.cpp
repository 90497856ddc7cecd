// Preloaded into a server: what relay threads send.
//   SEND_MS=N    a send with frames takes N ms, as on a machine with too little to do it with
//   CUT_PINGS=1  every other send with a ping ends in the middle of it, as into a socket just full
#include <dlfcn.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr size_t kPing = 10;
constexpr size_t kHalf = 5;

template <class F>
F* next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

bool on_relay_thread() {
  thread_local const bool is_one = [] {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    return std::strncmp(name, "relay-", 6) == 0;
  }();
  return is_one;
}

long setting(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::atol(value) : 0;
}

const long send_ms = setting("SEND_MS");
const bool cuts_pings = setting("CUT_PINGS") != 0;

}  // namespace

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static auto* real = next<ssize_t(int, const msghdr*, int)>("sendmsg");
  if (!on_relay_thread()) return real(fd, message, flags);
  std::vector<iovec> parts(message->msg_iov, message->msg_iov + message->msg_iovlen);
  bool has_frames = false;
  for (const iovec& part : parts)
    has_frames |= part.iov_len && *static_cast<uint8_t*>(part.iov_base) == 0x82;
  if (send_ms && has_frames) usleep(static_cast<useconds_t>(send_ms * 1000));
  auto is_ping = [](const iovec& part) {
    return part.iov_len == kPing && *static_cast<uint8_t*>(part.iov_base) == 0x89;
  };
  auto ping = std::find_if(parts.begin(), parts.end(), is_ping);
  static bool cut = false;  // there is one thread
  if (cuts_pings && ping != parts.end() && (cut = !cut)) {
    ping->iov_len = kHalf;
    parts.erase(ping + 1, parts.end());
  }
  msghdr mine = *message;
  mine.msg_iov = parts.data();
  mine.msg_iovlen = parts.size();
  return real(fd, &mine, flags);
}

extern "C" ssize_t send(int fd, const void* data, size_t n, int flags) {
  static auto* real = next<ssize_t(int, const void*, size_t, int)>("send");
  if (!on_relay_thread()) return real(fd, data, n, flags);
  iovec part{const_cast<void*>(data), n};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return sendmsg(fd, &message, flags);
}
