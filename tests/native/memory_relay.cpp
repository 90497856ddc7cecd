// The relay and memory: what it frees when a peer or a room goes, and what its verbs do when there
// is none left. Built with RELAYCORE_COUNT_OBJECTS.
//
// Memory is refused to the thread that calls, not to relay threads: one of those that gets none ends
// the process.
#include <poll.h>

#include <algorithm>
#include <list>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "relay_client.h"

using namespace relaycore;
using namespace relaycore::client;

// ---- memory that is refused ----

namespace {

thread_local unsigned refuse_nth = 0;  // the next but n - 1 request of this thread; 0: none
thread_local bool refused = false;

void* memory_or_nothing(size_t n, size_t alignment) noexcept {
  if (refuse_nth && --refuse_nth == 0) {
    refused = true;
    return nullptr;
  }
  return std::aligned_alloc(alignment, (n + alignment) / alignment * alignment);
}

void* memory(size_t n, size_t alignment) {
  if (void* found = memory_or_nothing(n, alignment)) return found;
  throw std::bad_alloc();
}

// Not inlined: GCC would warn of a free() of what came from a new.
[[gnu::noinline]] void give_back(void* p) noexcept { std::free(p); }

constexpr size_t kAlignment = alignof(std::max_align_t);

}  // namespace

void* operator new(size_t n) { return memory(n, kAlignment); }
void* operator new[](size_t n) { return memory(n, kAlignment); }
void* operator new(size_t n, std::align_val_t a) { return memory(n, static_cast<size_t>(a)); }
void* operator new[](size_t n, std::align_val_t a) { return memory(n, static_cast<size_t>(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept {
  return memory_or_nothing(n, kAlignment);
}
void* operator new[](size_t n, const std::nothrow_t&) noexcept {
  return memory_or_nothing(n, kAlignment);
}
void* operator new(size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return memory_or_nothing(n, static_cast<size_t>(a));
}
void* operator new[](size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return memory_or_nothing(n, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, size_t) noexcept { give_back(p); }
void operator delete[](void* p, size_t) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { give_back(p); }

namespace {

// Calls with the first request for memory refused, then with the second, and so on until none is:
// the verb has to say so each time, and to succeed in the end. Returns how many it makes.
template <class F>
unsigned with_every_request_refused(F&& verb) {
  for (unsigned nth = 1; nth < 1000; ++nth) {
    refused = false;
    refuse_nth = nth;
    Status status = verb();
    refuse_nth = 0;
    CHECK_EQ(static_cast<int>(status),
             static_cast<int>(refused ? Status::out_of_memory : Status::ok));
    if (!refused) return nth - 1;
  }
  CHECK(!"it ends");
  return 0;
}

// ---- a relay and its peers ----

struct Peer {
  Ends ends;
  uint64_t id = 0;
  long got = 0;  // bytes
};

class World {
 public:
  World() : descriptors_(open_descriptors()) {
    RelayConfig config;
    config.threads = 2;
    config.realtime = false;
    config.register_timeout_ns = 600'000'000'000;
    // A machine that is busy makes no slow listener.
    config.max_lag_ns = config.evict_after_ns = 600'000'000'000;
    require(Relay::start(config, relay) == Status::ok, "Relay::start");
  }
  ~World() {
    for (Peer& peer : peers_) ::close(peer.ends.ours);
    events_.clear();
    relay.reset();
    CHECK(nothing_is_left());
    CHECK_EQ(open_descriptors(), descriptors_);
  }

  Peer& attach() {
    Peer peer{connected()};
    require(relay->attach(peer.ends.relays, kUpgrade, {}, false, peer.id) == Status::ok, "attach");
    return peers_.emplace_back(peer);
  }
  Peer& listener(uint64_t room, const Subscription& wish) {
    Peer& peer = attach();
    require(relay->bind_listener(peer.id, room, wish, "{}", 0, 0, 0) == Status::ok, "listener");
    return peer;
  }
  Peer& source(uint64_t room) {
    Peer& peer = attach();
    require(relay->bind_source(source_binding(peer.id, room, 1), "{}") == Status::ok, "source");
    // As a client does: what it sends before the answer may come before it is a source.
    wait_for("the answer to a source", [&] {
      peer.got += std::max(0L, drain(peer.ends.ours));
      return peer.got > static_cast<long>(std::string_view(kUpgrade).size());
    });
    return peer;
  }
  uint64_t open_room() {
    uint64_t room = 0;
    require(relay->open_room(room) == Status::ok, "open_room");
    return room;
  }

  // As time goes by: the source sends, everyone reads, events are taken.
  void turn(Peer* source = nullptr) {
    if (source) {
      auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin_);
      const auto due = static_cast<uint64_t>(elapsed.count());
      // What a machine that is busy held up is left out: it would fill the socket, and half a packet
      // is the source's end.
      sent_ms_ = std::max(sent_ms_, due - std::min<uint64_t>(due, 100));
      for (; sent_ms_ < due; ++sent_ms_)
        if (!send_packet(source->ends.ours, sent_ms_ * kSamplesPerMs)) break;
    }
    for (Peer& peer : peers_)
      for (long n; (n = drain(peer.ends.ours)) > 0;) peer.got += n;
    take_events();
  }
  void take_events() {
    require(relay->poll(64, events_) == Status::ok, "poll");
    for (Event* event : events_) {
      if (event->kind == EventKind::closed) closed.push_back(event->subject);
      texts += event->kind == EventKind::text;
    }
  }
  void leave(Peer& peer) {
    ::close(peer.ends.ours);
    std::erase_if(peers_, [&](const Peer& other) { return &other == &peer; });
  }

  std::unique_ptr<Relay> relay;
  std::vector<uint64_t> closed;  // connections whose end was told
  unsigned texts = 0;

 private:
  unsigned descriptors_;
  std::list<Peer> peers_;
  std::vector<Event*> events_;
  Clock::time_point begin_ = Clock::now();
  uint64_t sent_ms_ = 0;
};

bool is_readable(int fd) {
  pollfd waiting{fd, POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1;
}

}  // namespace

// ---- what is freed, and when ----

TEST(a_peer_and_a_room_that_go_leave_nothing) {
  World world;
  for (int round = 0; round < 3; ++round) {
    uint64_t room = world.open_room();
    Peer& source = world.source(room);
    Subscription wishes[] = {everything(), everything(), mixed()};
    Peer* listeners[3];
    for (int i = 0; i < 3; ++i) listeners[i] = &world.listener(room, wishes[i]);
    wait_for("everybody hears the room", [&] {
      world.turn(&source);
      return std::all_of(std::begin(listeners), std::end(listeners),
                         [](const Peer* peer) { return peer->got > 20'000; });
    });
    CHECK_EQ(alive("Connection"), uint64_t{4});
    CHECK_EQ(alive("Room"), uint64_t{1});
    CHECK_EQ(alive("SourceLink"), uint64_t{1});
    CHECK_EQ(alive("JitterBuffer"), uint64_t{1});
    CHECK(alive("RoomView") > 0 && alive("Layout") > 0 && alive("Block") > 0);

    uint64_t layouts = alive("Layout");
    world.leave(*listeners[2]);
    wait_for("its connection, and the mix that nobody else hears, go", [&] {
      world.turn(&source);
      return alive("Connection") == 3 && alive("Layout") == layouts - 1;
    });

    require(world.relay->close_room(room, "{}", 4410) == Status::ok, "close_room");
    for (const char* kind : {"Room", "SourceLink", "JitterBuffer", "ChannelRing"}) {
      wait_for(kind, [&] {
        world.turn();
        return alive(kind) == 0;
      });
    }
    world.leave(source);
    world.leave(*listeners[0]);
    world.leave(*listeners[1]);
    for (const char* kind : {"Connection", "RoomView", "RoomCounters", "Layout", "Block",
                             "StreamInfo", "SourceState", "OutboxEntry", "Text", "Event"}) {
      wait_for(kind, [&] {
        world.turn();
        return alive(kind) == 0;
      });
    }
  }
}

// ---- what happens when there is no memory ----

TEST(a_relay_that_gets_no_memory_does_not_start) {
  unsigned descriptors = open_descriptors();
  std::unique_ptr<Relay> relay;
  RelayConfig config;
  config.threads = 2;
  config.realtime = false;
  CHECK(with_every_request_refused([&] { return Relay::start(config, relay); }) > 5);
  CHECK(relay != nullptr);
  relay.reset();
  CHECK(nothing_is_left());
  CHECK_EQ(open_descriptors(), descriptors);
}

TEST(a_verb_that_gets_no_memory_changes_nothing_and_disturbs_nobody) {
  World world;
  Relay& relay = *world.relay;
  uint64_t room = world.open_room();
  Peer& source = world.source(room);
  Peer& witness = world.listener(room, everything());
  auto hears = [&] {
    long before = witness.got;
    wait_for("the witness hears", [&] {
      world.turn(&source);
      return witness.got > before + 20'000;
    });
    CHECK(world.closed.empty());
  };
  hears();
  auto figures = [&] {
    uint64_t connections = 0, rooms = 0;
    for (const ThreadFigures& thread : relay.thread_figures()) {
      connections += thread.connections;
      rooms += thread.rooms;
    }
    return std::vector<uint64_t>{connections, rooms, relay.room_figures().size()};
  };
  CHECK((figures() == std::vector<uint64_t>{2, 1, 1}));

  uint64_t id = 0;
  Ends ends = connected();
  CHECK(with_every_request_refused([&] {
          CHECK(fcntl(ends.relays, F_GETFD) >= 0);  // it is still the caller's
          return relay.attach(ends.relays, kUpgrade, {}, false, id);
        }) >= 2);  // connections come out of memory that many share
  ::close(ends.ours);
  wait_for("the new connection ends", [&] {
    world.turn(&source);
    return world.closed == std::vector<uint64_t>{id};
  });
  world.closed.clear();
  hears();

  uint64_t other = 0;
  CHECK(with_every_request_refused([&] { return relay.open_room(other); }) >= 3);
  CHECK((figures() == std::vector<uint64_t>{2, 2, 2}));
  hears();

  // To each verb its own effect, once and only once: nothing of the calls that failed.
  Peer& second = world.attach();
  CHECK(with_every_request_refused(
            [&] { return relay.bind_source(source_binding(second.id, other, 7), "{}"); }) > 3);
  Peer& third = world.attach();
  CHECK(with_every_request_refused(
            [&] { return relay.bind_listener(third.id, other, mixed(), "{}", 0, 0, 0); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.subscribe(third.id, everything(), "{}"); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.send(third.id, "{}", true, false); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.send(third.id, R"({"at":)", true, true); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.report_lag(third.id, 1'000'000'000); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.send_room(other, "{}"); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.inspect(other); }) > 0);
  // 101, listenerRegistered, mixChanged, the two texts, the room's.
  constexpr long kAnswers = sizeof kUpgrade - 1 + 4 + 4 + 4 + (2 + 6 + 16 + 1) + 4;
  wait_for("the listener has its answers", [&] {
    world.turn(&source);
    return third.got >= kAnswers;
  });
  hears();
  CHECK_EQ(third.got, kAnswers);
  CHECK(with_every_request_refused([&] { return relay.unbind_source(second.id); }) > 0);
  CHECK(with_every_request_refused(
            [&] { return relay.close_connection(second.id, 4403, "kicked", "{}"); }) > 0);
  CHECK(with_every_request_refused([&] { return relay.close_room(other, "{}", 4410); }) > 0);
  CHECK((figures()[1] == 1 && figures()[2] == 1));
  hears();
  world.leave(second);
  world.leave(third);
  wait_for("both are gone", [&] {
    world.turn(&source);
    return world.closed.size() == 2;
  });
  world.closed.clear();
  hears();
}

TEST(events_that_find_no_memory_wait) {
  World world;
  Relay& relay = *world.relay;
  Peer& peer = world.attach();
  for (int i = 0; i < 3; ++i) send_text(peer.ends.ours);
  wait_for("events", [&] { return is_readable(relay.event_fd()); });
  std::vector<Event*> events;
  size_t seen = 0;
  CHECK(with_every_request_refused([&] {
          Status status = relay.poll(64, events);
          if (status != Status::ok) CHECK(events.empty() && is_readable(relay.event_fd()));
          seen += events.size();
          return status;
        }) == 2);
  wait_for("the three texts", [&] {
    CHECK(relay.poll(64, events) == Status::ok);
    seen += events.size();
    return seen == 3;
  });
  // A poll that has places needs no memory at all, also not to let a connection be read again.
  for (int i = 0; i < 40; ++i) send_text(peer.ends.ours);
  events.reserve(64);
  wait_for("forty more", [&] {
    refuse_nth = 1;
    CHECK(relay.poll(32, events) == Status::ok);
    refuse_nth = 0;
    seen += events.size();
    return seen == 43;
  });
}

TEST(a_relay_that_gets_no_memory_ends_all_the_same) {
  for (unsigned nth = 1; nth < 4; ++nth) {
    World world;
    Peer& peer = world.attach();
    refuse_nth = nth;
    world.relay->close("{}", 0);
    refuse_nth = 0;
    world.take_events();
    CHECK(world.closed == std::vector<uint64_t>{peer.id});
  }
}
