// Everything at once for a while: start, stop, attach, bind, remix, kick, rooms that open and close
// during full flow, from several threads. The sanitizers watch; what is checked here is that every
// connection ends exactly once and that nothing is left.
//
//   stress_relay SECONDS SEED

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "relaycore/relay.h"
#include "relaycore/ws_codec.h"

using namespace relaycore;
using Clock = std::chrono::steady_clock;

namespace {

constexpr char kAnnounce[] = R"({"type":"streamStarted","timestamp":)";

struct Client {
  int fd = -1;
  uint64_t id = 0;
  bool is_source = false;
  bool reads = true;
  uint64_t timestamp = 0;
};

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// One control thread's world: it attaches clients, feeds and drains them, and changes its mind.
class Worker {
 public:
  Worker(Relay& relay, unsigned seed, std::atomic<uint64_t>& attached)
      : relay_(relay), random_(seed), attached_(attached) {}

  ~Worker() {
    for (Client& client : clients_) ::close(client.fd);
    for (int copy : copies_) ::close(copy);
  }

  void run(Clock::time_point end) {
    while (Clock::now() < end) {
      step();
      feed();
      drain();
    }
  }

 private:
  unsigned pick(unsigned n) { return random_() % n; }

  Subscription subscription() {
    Subscription wish;
    wish.mode = pick(2) ? Mode::mix : Mode::multichannel;
    wish.encoding = pick(2) ? Encoding::s16le : Encoding::f32le;
    wish.all_channels = pick(2);
    wish.channels = pick(255) + 1;
    wish.levels = pick(4) == 0;
    wish.interval_ms = pick(4) ? 0 : pick(200);
    wish.mutes = pick(4);
    for (unsigned c = 0; c < kMaxChannels; ++c) {
      wish.faders[c] = static_cast<float>(pick(3));
      wish.pans[c] = 0;
    }
    return wish;
  }

  void attach() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return;
    set_nonblocking(ends[1]);
    if (pick(8) == 0) copies_.push_back(dup(ends[0]));  // the relay is not the only one to hold it
    Client client;
    client.fd = ends[1];
    client.reads = pick(8) != 0;
    if (relay_.attach(ends[0], "HTTP/1.1 101 Switching Protocols\r\n\r\n", false, client.id) !=
        Status::ok) {
      ::close(ends[0]);
      ::close(ends[1]);
      return;
    }
    ++attached_;
    client.is_source = pick(6) == 0;
    uint64_t room = rooms_.empty() ? 0 : rooms_[pick(static_cast<unsigned>(rooms_.size()))];
    if (client.is_source) {
      SourceBinding binding{client.id, room, static_cast<uint16_t>(++streams_),
                            {Encoding::s16le, 8, 48000}, 5, 30, kAnnounce};
      relay_.bind_source(binding, R"({"type":"sourceRegistered"})");
    } else {
      relay_.bind_listener(client.id, room, subscription(), R"({"type":"listenerRegistered"})", 0,
                           pick(3) ? 0 : 500, 0);
    }
    clients_.push_back(client);
  }

  void step() {
    switch (pick(12)) {
      case 0:
        if (rooms_.size() < 4) {
          uint64_t room;
          if (relay_.open_room(room) == Status::ok) rooms_.push_back(room);
        }
        break;
      case 1:
        if (pick(20) == 0 && !rooms_.empty()) {
          size_t at = pick(static_cast<unsigned>(rooms_.size()));
          relay_.close_room(rooms_[at], R"({"type":"roomClosed"})", 4410);
          rooms_.erase(rooms_.begin() + static_cast<long>(at));
        }
        break;
      case 2:
      case 3:
        if (clients_.size() < 60) attach();
        break;
      case 4:
        if (Client* client = any()) relay_.close_connection(client->id, 4403, "kicked", {});
        break;
      case 5:
        if (pick(4) == 0 && !clients_.empty()) {
          size_t at = pick(static_cast<unsigned>(clients_.size()));
          ::close(clients_[at].fd);
          clients_.erase(clients_.begin() + static_cast<long>(at));
        }
        break;
      case 6:
        if (!rooms_.empty()) relay_.send_room(rooms_[0], R"({"type":"roomStatus"})");
        break;
      case 7:
        if (!rooms_.empty()) relay_.inspect(rooms_[0]);
        break;
      case 8:
        if (Client* client = any(); client && client->is_source && pick(10) == 0)
          relay_.unbind_source(client->id);
        break;
      default:
        if (Client* client = any())
          relay_.subscribe(client->id, subscription(), R"({"type":"mixChanged"})");
    }
  }

  Client* any() {
    return clients_.empty() ? nullptr : &clients_[pick(static_cast<unsigned>(clients_.size()))];
  }

  // Some audio of every source, masked with zeros.
  void feed() {
    for (Client& client : clients_) {
      if (!client.is_source) {
        if (pick(50) == 0) {
          const uint8_t text[] = {0x81, 0x82, 0, 0, 0, 0, '{', '}'};
          [[maybe_unused]] ssize_t n = ::send(client.fd, text, sizeof text, MSG_NOSIGNAL);
        }
        continue;
      }
      // Now and then far ahead of its room, so that the rings fill and reading pauses.
      unsigned bursts = pick(30) == 0 ? 400 : 1;
      while (bursts-- && feed(client)) {
      }
    }
  }

  bool feed(Client& client) {
    constexpr uint32_t kSamples = 48;
    uint8_t message[8 + kHeaderBytes + 8 * kSamples * 2] = {};
    size_t payload = sizeof message - 8;
    message[0] = 0x82;
    message[1] = 0x80 | 126;
    message[2] = static_cast<uint8_t>(payload >> 8);
    message[3] = static_cast<uint8_t>(payload);
    PacketHeader header{1, 1, 0, 0, 0, 8, 0, kSamples, client.timestamp, 1};
    write_packet_header(message + 8, header);
    ssize_t sent = ::send(client.fd, message, sizeof message, MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(sizeof message)) {
      client.timestamp += kSamples;
      return true;
    }
    if (sent > 0) ::shutdown(client.fd, SHUT_RDWR);  // a packet that is cut in half
    return false;
  }

  void drain() {
    char buffer[65536];
    for (size_t i = 0; i < clients_.size();) {
      ssize_t n = clients_[i].reads ? ::recv(clients_[i].fd, buffer, sizeof buffer, 0) : -1;
      if (n > 10) answer_ping(clients_[i], reinterpret_cast<uint8_t*>(buffer) + n - 10);
      if (n == 0) {
        ::close(clients_[i].fd);
        clients_.erase(clients_.begin() + static_cast<long>(i));
      } else {
        ++i;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // A ping stands at the end of what is sent together.
  void answer_ping(Client& client, const uint8_t* tail) {
    if (tail[0] != 0x89 || tail[1] != 8) return;
    uint8_t pong[14] = {0x8a, 0x88};
    std::memcpy(pong + 6, tail + 2, 8);
    [[maybe_unused]] ssize_t n = ::send(client.fd, pong, sizeof pong, MSG_NOSIGNAL);
  }

  Relay& relay_;
  std::mt19937 random_;
  std::atomic<uint64_t>& attached_;
  std::vector<Client> clients_;
  std::vector<int> copies_;
  std::vector<uint64_t> rooms_;
  uint64_t streams_ = 0;
};

bool round_of(Clock::time_point end, unsigned seed) {
  RelayConfig config;
  config.threads = 3;
  config.realtime = false;
  config.max_lag_ns = 50'000'000;
  config.ping_interval_ns = 20'000'000;
  config.evict_after_ns = 200'000'000;
  std::unique_ptr<Relay> relay;
  if (Relay::start(config, relay) != Status::ok) {
    std::perror("Relay::start");
    return false;
  }
  std::atomic<uint64_t> attached{0};
  std::atomic<bool> done{false};
  uint64_t closed = 0;
  auto poll_all = [&] {
    std::vector<Event*> events;
    size_t count = 0;
    do {
      if (relay->poll(64, events) != Status::ok) return;
      count = events.size();
      for (Event* event : events) closed += event->kind == EventKind::closed;
    } while (count);
  };
  std::thread poller([&] {
    while (!done) {
      pollfd waiting{relay->event_fd(), POLLIN, 0};
      ::poll(&waiting, 1, 50);
      poll_all();
      relay->thread_figures();
      relay->room_figures();
    }
  });
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] { Worker(*relay, seed + i, attached).run(end); });
  }
  for (std::thread& thread : threads) thread.join();
  relay->close(R"({"type":"bye"})", 200'000'000);
  done = true;
  poller.join();
  poll_all();
  std::printf("seed %u: %lu attached, %lu closed\n", seed, attached.load(), closed);
  return attached == closed;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = argc > 1 ? std::atof(argv[1]) : 2;
  unsigned seed = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1;
  auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(seconds));
  do {
    auto round_end = std::min(end, Clock::now() + std::chrono::milliseconds(700));
    if (!round_of(round_end, seed++)) return 1;
  } while (Clock::now() < end);
  return 0;
}
