// The load client under everything at once: threads that command it, a server that answers, gives up
// and hangs up at random. Watched by sanitizers; a wrong count fails.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "load_thread.h"
#include "relaycore/load_client.h"
#include "relaycore/packet.h"
#include "relaycore/ws_codec.h"

namespace {

using namespace relaycore;

constexpr size_t kListeners = 60;
constexpr size_t kPayload = 500;
constexpr int64_t kCommandedNs = 3'000'000'000;

// One thread for all connections: it answers requests, and sends each a frame every few
// milliseconds. Of every hundred frames one is left out, and now and then it hangs up.
class Server {
 public:
  Server() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    CHECK(listen(listener_, 512) == 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    // relaxed: nothing else is passed on with it; the join does that.
    quit_.store(true, std::memory_order_relaxed);
    thread_.join();
    for (Peer& peer : peers_) close(peer.fd);
    close(listener_);
  }
  uint16_t port() const { return port_; }

 private:
  struct Peer {
    int fd;
    std::string request;
    bool open = false, registered = false;
    uint32_t sequence = 0;
  };

  void run() {
    // relaxed: see above.
    while (!quit_.load(std::memory_order_relaxed)) {
      std::vector<pollfd> fds{{listener_, POLLIN, 0}};
      for (const Peer& peer : peers_) fds.push_back({peer.fd, POLLIN, 0});
      poll(fds.data(), fds.size(), 2);
      const size_t known = peers_.size();
      for (size_t i = 0; i < known; ++i)
        if (fds[i + 1].revents != 0) read_from(peers_[i]);
      if (fds[0].revents != 0) peers_.push_back({accept(listener_, nullptr, nullptr), {}});
      for (Peer& peer : peers_)
        if (peer.registered) send_frame(peer);
      std::erase_if(peers_, [](const Peer& peer) { return peer.fd < 0; });
    }
  }

  void read_from(Peer& peer) {
    char bytes[8192];
    const ssize_t n = recv(peer.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n <= 0) return hang_up(peer);
    if (!peer.open) {
      peer.request.append(bytes, static_cast<size_t>(n));
      if (peer.request.find("\r\n\r\n") == std::string::npos) return;
      peer.open = true;
      say(peer, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " +
                    std::string(kLoadAccept) + "\r\n\r\n" + text(R"({"type":"config"})"));
    } else if (!peer.registered) {
      peer.registered = true;
      say(peer, text(R"({"type":"listenerRegistered"})"));
    } else if (static_cast<uint8_t>(bytes[0]) == 0x81) {
      say(peer, text(R"({"type":"subscribed"})") + std::string("\x89\x02hi"));
    }
  }

  void send_frame(Peer& peer) {
    if (peer.fd < 0) return;
    if (std::rand() % 2000 == 0) return hang_up(peer);
    if (++peer.sequence % 100 == 0) ++peer.sequence;
    uint8_t frame[kWsMaxServerHeader + kHeaderBytes];
    const size_t header = write_ws_header(frame, WsOpcode::binary, kHeaderBytes + kPayload);
    write_frame_header(frame + header, Encoding::s16le, 0, 1, 1, peer.sequence, kPayload / 2, 0,
                       static_cast<uint64_t>(monotonic_ns() / 1000));
    say(peer, std::string(reinterpret_cast<char*>(frame), header + kHeaderBytes) +
                  std::string(kPayload, '\0'));
  }

  static std::string text(const std::string& what) {
    uint8_t header[kWsMaxServerHeader];
    const size_t n = write_ws_header(header, WsOpcode::text, what.size());
    return std::string(reinterpret_cast<char*>(header), n) + what;
  }

  static void say(Peer& peer, const std::string& bytes) {
    // One that does not read is given up, which keeps messages whole.
    if (send(peer.fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
        static_cast<ssize_t>(bytes.size()))
      hang_up(peer);
  }
  static void hang_up(Peer& peer) {
    if (peer.fd >= 0) close(peer.fd);
    peer.fd = -1;
    peer.registered = false;
  }

  int listener_;
  uint16_t port_ = 0;
  std::atomic<bool> quit_{false};
  std::vector<Peer> peers_;
  std::thread thread_;
};

std::vector<uint32_t> some() {
  std::vector<uint32_t> numbers;
  for (uint32_t i = 0; i < kListeners + 5; ++i)  // some of them are unknown
    if (std::rand() % 8 == 0) numbers.push_back(i);
  return numbers;
}

}  // namespace

TEST(commands_from_many_threads_while_connections_come_and_go) {
  Server server;
  LoadConfig config;
  config.port = server.port();
  config.authority = "127.0.0.1";
  config.threads = 3;
  config.rejoin = true;
  config.retry_ns = 5'000'000;
  config.clock = LoadClock::given;
  std::unique_ptr<LoadClient> client;
  std::string why;
  CHECK(LoadClient::start(config, client, why) == Status::ok);
  LoadListeners listeners;
  listeners.count = kListeners / 2;
  listeners.registers = {R"({"type":"registerListener"})"};
  client->add_listeners(listeners);
  listeners.group = 1;
  listeners.per_second = 200;
  client->add_listeners(listeners);

  const int64_t end = monotonic_ns() + kCommandedNs;
  std::vector<std::thread> commanders;
  for (int kind = 0; kind < 4; ++kind) {
    commanders.emplace_back([&, kind] {
      while (monotonic_ns() < end) {
        switch (kind) {
          case 0: client->drop(some()); break;
          case 1: client->limit(some(), std::rand() % 3 == 0 ? -1 : std::rand() % 100'000); break;
          case 2: client->send(some(), {R"({"type":"setMix"})", R"({"type":"stats"})"}); break;
          default: client->figures(std::rand() % 4 == 0);
        }
        usleep(1000);
      }
    });
  }
  for (std::thread& commander : commanders) commander.join();
  CHECK(client->listeners().size() == kListeners);

  // Everybody reads again and comes back, and what was left out is all that is missing.
  std::vector<uint32_t> all(kListeners);
  for (uint32_t i = 0; i < kListeners; ++i) all[i] = i;
  client->limit(all, -1);
  client->rejoin(false);
  client->rejoin(true);
  const auto heard = [&] {
    uint64_t joined = 0;
    for (const LoadFigures& f : client->figures(false)) joined += f.joined;
    return joined;
  };
  const int64_t patience = monotonic_ns() + 20'000'000'000;
  while (heard() < kListeners - 5 && monotonic_ns() < patience) usleep(10'000);
  CHECK(heard() >= kListeners - 5);
  uint64_t frames = 0, missing = 0, gaps = 0;
  for (const LoadRecord& record : client->listeners()) {
    CHECK(record.losses - record.returns <= 1);
    CHECK(record.joined_ns > 0);
    frames += record.frames;
    gaps += record.gaps;
    missing += record.expected - record.frames;
  }
  CHECK(frames > 0);
  CHECK(gaps == missing);  // never two in a row
  client->count_until(0);
  client.reset();
}
