// Everything at once for a while: start, stop, attach, bind, remix, kick, rooms that open and close
// during full flow, from several threads, and over the end of the relay. The sanitizers watch; what
// is checked here is that every connection that the relay took ends exactly once, that no descriptor
// and no object is left, and that all of it happened.
//
//   stress_relay SECONDS SEED

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "relay_client.h"
#include "relaycore/connection.h"

using namespace relaycore;
using namespace relaycore::client;

namespace {

constexpr unsigned kWorkers = 3;
constexpr size_t kMaxClients = 40;  // of each worker
constexpr size_t kMaxRooms = 4;

// What has to have happened before the program ends.
struct Seen {
  std::atomic<uint64_t> reasons{0};  // bit r: a connection that ended for reason r
  std::atomic<uint64_t> kinds{0};    // bit k: an event of kind k
  std::atomic<uint64_t> frames{0};   // that connections got
  std::atomic<uint64_t> refused{0};  // attachments that came too late for the relay

  bool has(CloseReason reason) const { return reasons >> static_cast<int>(reason) & 1; }
  bool has(EventKind kind) const { return kinds >> static_cast<int>(kind) & 1; }
  bool all() const {
    return has(CloseReason::peer_lost) && has(CloseReason::closed) &&
           has(CloseReason::room_closed) && has(CloseReason::shutdown) &&
           has(CloseReason::too_slow) && has(CloseReason::protocol_error) &&
           has(EventKind::text) && has(EventKind::stream_live) && has(EventKind::stream_ended) &&
           has(EventKind::room_report) && frames > 1000 && refused > 0;
  }
};

struct Client {
  int fd;
  uint64_t id = 0;
  bool is_source = false;
  bool reads = true;
  uint64_t timestamp = 0;
  Clock::time_point since = Clock::now();
};

// One control thread's world: it attaches clients, feeds and drains them, and changes its mind.
class Worker {
 public:
  Worker(Relay& relay, unsigned seed, Seen& seen) : relay_(relay), random_(seed), seen_(seen) {}

  ~Worker() {
    for (Client& client : clients_) ::close(client.fd);
    for (int copy : copies_) ::close(copy);
  }

  // Until the relay takes nothing any more.
  void run() {
    while (!refused_) {
      for (unsigned n = pick(8); n--;) step();
      feed();
      drain_all();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::vector<uint64_t> attached;  // every id that the relay gave out

 private:
  unsigned pick(size_t n) { return static_cast<unsigned>(random_() % n); }

  Subscription subscription() {
    Subscription wish = pick(2) ? mixed() : everything();
    wish.encoding = pick(2) ? Encoding::s16le : Encoding::f32le;
    wish.all_channels = pick(2);
    wish.channels = pick(255) + 1;
    wish.levels = pick(4) == 0;
    wish.interval_ms = pick(4) ? 0 : pick(200);
    wish.mutes = pick(4);
    for (unsigned c = 0; c < kMaxChannels; ++c) wish.faders[c] = static_cast<float>(pick(3));
    return wish;
  }

  void bind(Client& client) {
    uint64_t room = rooms_.empty() ? 0 : rooms_[pick(rooms_.size())];
    if (client.is_source) {
      client.timestamp = 0;
      client.since = Clock::now();
      relay_.bind_source(source_binding(client.id, room, static_cast<uint16_t>(++streams_)),
                         R"({"type":"sourceRegistered"})");
    } else {
      relay_.bind_listener(client.id, room, subscription(), R"({"type":"listenerRegistered"})", 0,
                           pick(3) ? 0 : 500, 0);
    }
  }

  void attach() {
    Ends ends = pick(3) ? connected_over_tcp() : connected();
    if (pick(8) == 0) copies_.push_back(dup(ends.relays));  // the relay is not alone in holding it
    Client client{ends.ours};
    client.is_source = pick(6) == 0;
    client.reads = pick(8) != 0;
    Status status = relay_.attach(ends.relays, kUpgrade, {}, false, client.id);
    if (status != Status::ok) {
      // It is still ours.
      require(status == Status::closed, "a sound socket is refused by a closed relay alone");
      require(::close(ends.relays) == 0, "what is refused stays open");
      ::close(ends.ours);
      refused_ = true;
      ++seen_.refused;
      return;
    }
    attached.push_back(client.id);
    bind(client);
    clients_.push_back(client);
  }

  void step() {
    switch (pick(15)) {
      case 0:
        if (uint64_t room = 0; rooms_.size() < kMaxRooms && relay_.open_room(room) == Status::ok)
          rooms_.push_back(room);
        break;
      case 1:
        if (pick(20) == 0 && !rooms_.empty()) {
          auto room = rooms_.begin() + pick(rooms_.size());
          relay_.close_room(*room, R"({"type":"roomClosed"})", 4410);
          rooms_.erase(room);
        }
        break;
      case 2:
      case 3:
        if (clients_.size() >= kMaxClients) forget(pick(clients_.size()));
        attach();
        break;
      case 4:
        if (Client* client = any()) relay_.close_connection(client->id, 4403, "kicked", {});
        break;
      case 5:
        if (pick(4) == 0 && !clients_.empty()) forget(pick(clients_.size()));
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
      case 9:  // to another room, or anew
        if (Client* client = any(); client && pick(5) == 0) bind(*client);
        break;
      case 10:
        if (Client* client = any()) relay_.send(client->id, R"({"type":"pong","at":)", true, true);
        break;
      case 11:  // at times behind texts that are not answered yet
        if (Client* client = any(); client && pick(10) == 0) {
          for (unsigned n = pick(4); n > 0; --n) send_text(client->fd);
          break_framing(client->fd);
        }
        break;
      default:
        if (Client* client = any())
          relay_.subscribe(client->id, subscription(), R"({"type":"mixChanged"})");
    }
  }

  Client* any() { return clients_.empty() ? nullptr : &clients_[pick(clients_.size())]; }

  void forget(size_t at) {
    ::close(clients_[at].fd);
    clients_.erase(clients_.begin() + static_cast<long>(at));
  }

  // What is due of every source, and now and then far more than that, so that the rings fill and
  // reading pauses.
  void feed() {
    for (Client& client : clients_) {
      if (!client.is_source) {  // who says something is alive, so that only the silent are too slow
        if (client.reads && pick(50) == 0) send_text(client.fd);
        continue;
      }
      auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - client.since);
      uint64_t due = static_cast<uint64_t>(elapsed.count()) * kSamplesPerMs;
      if (pick(100) == 0) due = client.timestamp + 400 * kSamplesPerMs;
      for (int most = 400; most && client.timestamp < due; --most) {
        if (!send_packet(client.fd, client.timestamp)) break;
        client.timestamp += kSamplesPerMs;
      }
    }
  }

  void drain_all() {
    for (size_t i = clients_.size(); i-- > 0;)
      if (clients_[i].reads && drain(clients_[i].fd) < 0) forget(i);
  }

  Relay& relay_;
  std::mt19937 random_;
  Seen& seen_;
  bool refused_ = false;
  std::vector<Client> clients_;
  std::vector<int> copies_;
  std::vector<uint64_t> rooms_;
  uint64_t streams_ = 0;
};

void round_of(std::chrono::milliseconds length, unsigned seed, Seen& seen) {
  RelayConfig config;
  config.threads = 1 + seed % 3;
  config.realtime = false;
  config.max_lag_ns = 50'000'000;
  config.ping_interval_ns = 20'000'000;
  config.evict_after_ns = 100'000'000;
  config.watchdog_ns = 50'000'000;
  unsigned descriptors = open_descriptors();
  std::unique_ptr<Relay> relay;
  require(Relay::start(config, relay) == Status::ok, "Relay::start");
  std::atomic<bool> done{false};
  std::vector<uint64_t> closed;
  auto poll_all = [&] {
    std::vector<Event*> events;
    do {
      require(relay->poll(64, events) == Status::ok, "poll");
      for (Event* event : events) {
        seen.kinds |= uint64_t{1} << static_cast<int>(event->kind);
        if (event->kind != EventKind::closed) continue;
        auto* end = static_cast<ClosedEvent*>(event);
        closed.push_back(end->subject);
        seen.reasons |= uint64_t{1} << static_cast<int>(end->reason);
        seen.frames += end->connection->frames_sent;
      }
    } while (!events.empty());
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
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kWorkers; ++i) {
    workers.push_back(std::make_unique<Worker>(*relay, seed * kWorkers + i, seen));
    threads.emplace_back([&worker = *workers.back()] { worker.run(); });
  }
  std::this_thread::sleep_for(length);
  // Two ask for the end, while the others go on: with time for goodbyes, or without.
  std::thread another([&] { relay->close({}, 0); });
  relay->close(R"({"type":"bye"})", seed % 2 ? 200'000'000 : 0);
  another.join();
  for (std::thread& thread : threads) thread.join();
  done = true;
  poller.join();
  poll_all();
  uint64_t connections = 0;
  for (const ThreadFigures& figures : relay->thread_figures()) connections += figures.connections;
  relay.reset();
  std::vector<uint64_t> attached;
  for (auto& worker : workers)
    attached.insert(attached.end(), worker->attached.begin(), worker->attached.end());
  workers.clear();
  std::sort(attached.begin(), attached.end());
  std::sort(closed.begin(), closed.end());
  std::printf("seed %u: %zu attached, %zu closed\n", seed, attached.size(), closed.size());
  require(attached == closed, "every connection that was taken ends once");
  require(connections == 0, "no connection is counted any more");
  require(open_descriptors() == descriptors, "every descriptor is closed");
  require(nothing_is_left(), "every object is freed");
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = argc > 1 ? std::atof(argv[1]) : 2;
  unsigned seed = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1;
  auto begin = Clock::now();
  auto lasted = [begin](double wanted) {
    return std::chrono::duration<double>(Clock::now() - begin).count() >= wanted;
  };
  Seen seen;
  while (!lasted(seconds) || !seen.all()) {
    require(!lasted(seconds + 60), "a minute later all of it has happened");
    round_of(std::chrono::milliseconds(100 + 500 * (seed % 3)), seed, seen);
    ++seed;
  }
  return 0;
}
