// The control plane's side: every verb becomes a task for the thread it concerns.
#include "relaycore/relay.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <mutex>
#include <new>

#include "relaycore/gate.h"
#include "relay_thread.h"
#include "relay_watchdog.h"

namespace relaycore {
namespace {

int64_t unix_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

// While a listener lags it is sent nothing, and everything before has been acknowledged: of a peer
// that vanished then nothing would ever tell. So the kernel asks by itself. A player that stands still
// on a machine that is there is answered for by its kernel, and stays.
void end_if_vanished(int fd, int64_t within_ns) noexcept {
  constexpr int64_t kMost = 32767, kMostProbes = 127;  // that the kernel takes
  int64_t seconds = std::max<int64_t>((within_ns + 999'999'999) / 1'000'000'000, 1);
  int64_t idle = std::clamp<int64_t>(seconds / 3, 1, kMost);
  int64_t interval = std::clamp<int64_t>(seconds / 6, 1, kMost);
  int64_t probes = std::clamp<int64_t>((seconds - idle + interval - 1) / interval, 1, kMostProbes);
  auto set = [fd](int level, int option, int64_t value) {
    int word = static_cast<int>(value);
    setsockopt(fd, level, option, &word, sizeof word);
  };
  set(IPPROTO_TCP, TCP_KEEPIDLE, idle);
  set(IPPROTO_TCP, TCP_KEEPINTVL, interval);
  set(IPPROTO_TCP, TCP_KEEPCNT, probes);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

// Owns the descriptor, through its connection, until it has come to its thread.
struct AttachTask final : Task {
  void run(RelayThread& thread) override {
    thread.attach(std::move(connection), std::move(response));
  }
  std::unique_ptr<Connection> connection;
  Ref<Text> response;
};

// Made when the relay starts, so that it can be ended when there is no memory left.
struct StopTask final : Task {
  void run(RelayThread& thread) override { thread.stop(text, deadline_ns); }
  void dispose() noexcept override {}
  Ref<Text> text;
  int64_t deadline_ns = 0;
};

template <class F>
std::unique_ptr<Task> make_task(F&& function) {
  return std::make_unique<FunctionTask<std::decay_t<F>>>(std::forward<F>(function));
}

}  // namespace

struct Relay::Impl {
  RelayShared shared;
  RelayWatchdog watchdog{shared};
  std::atomic<uint64_t> next_serial{1};
  // Every verb goes through it with its tasks, which so stand before the last one in each thread's
  // queue: what was taken over is carried out, or ended by the end of the relay, and told.
  Gate gate;
  std::unique_ptr<StopTask[]> stops;  // by thread
  std::vector<Event*> polled;         // given out by the last poll()

  std::mutex mutex;  // control plane only: for the rooms, never held for long
  std::mutex closing;
  std::unordered_map<uint64_t, Ref<RoomCounters>> rooms;

  ~Impl() {
    release_polled();
    while (auto* node = shared.events.pop()) {
      polled.push_back(static_cast<Event*>(node));
      release_polled();
    }
    shared.threads.clear();
    if (shared.event_fd >= 0) ::close(shared.event_fd);
  }

  uint64_t make_id(unsigned thread) noexcept {
    // relaxed: it only has to be unique.
    return next_serial.fetch_add(1, std::memory_order_relaxed) << 8 | thread;
  }

  unsigned least_loaded(Counter ThreadCounters::*load) const noexcept {
    auto lighter = [load](const auto& a, const auto& b) {
      return (a->counters.*load).get() < (b->counters.*load).get();
    };
    auto it = std::min_element(shared.threads.begin(), shared.threads.end(), lighter);
    return static_cast<unsigned>(it - shared.threads.begin());
  }

  // An id that no thread can own is one that never was.
  RelayThread* owner(uint64_t id) noexcept {
    unsigned thread = thread_of(id);
    return thread < shared.threads.size() ? shared.threads[thread].get() : nullptr;
  }

  // Nothing fails after the task is made: what takes memory comes first, then the gate, and then
  // what changes anything.
  Status post(uint64_t id, std::unique_ptr<Task> task) noexcept {
    GatePass pass(gate);
    if (!pass) return Status::closed;
    if (RelayThread* thread = owner(id)) thread->post(task.release());
    return Status::ok;
  }
  template <class F>
  Status call(uint64_t id, F&& function) {
    return post(id, make_task(std::forward<F>(function)));
  }
  // To every thread at once.
  template <class F>
  Status call_all(const F& function) {
    std::vector<std::unique_ptr<Task>> tasks;
    for (size_t i = 0; i < shared.threads.size(); ++i) tasks.push_back(make_task(F(function)));
    GatePass pass(gate);
    if (!pass) return Status::closed;
    for (size_t i = 0; i < shared.threads.size(); ++i) shared.threads[i]->post(tasks[i].release());
    return Status::ok;
  }

  template <class T>
  static void reserve_one_more(std::vector<T>& list) {
    if (list.size() == list.capacity()) list.reserve(std::max<size_t>(64, 2 * list.size()));
  }

  static Ref<Text> text_or_nothing(std::string_view text) {
    return text.empty() ? Ref<Text>{} : Text::message(WsOpcode::text, text);
  }

  // Texts of the last poll() are processed; whoever was held back for them reads on.
  void release_polled() noexcept {
    for (Event* event : polled) {
      switch (event->kind) {
        case EventKind::text:
        case EventKind::binary: {
          auto* message = static_cast<MessageEvent*>(event);
          // relaxed: see Connection::texts_pending.
          uint32_t before =
              message->connection->texts_pending.fetch_sub(1, std::memory_order_relaxed);
          if (before == kMaxTextsPending)
            owner(message->subject)->post(&message->resume);
          else
            delete message;
          break;
        }
        case EventKind::closed: {
          // It comes after every other event of its connection.
          auto* closed_event = static_cast<ClosedEvent*>(event);
          delete closed_event->connection;
          break;
        }
        case EventKind::stream_live:
        case EventKind::stream_buffering:
        case EventKind::stream_ended:
          delete static_cast<StreamEvent*>(event);
          break;
        case EventKind::source_report: {
          auto* report = static_cast<SourceReportEvent*>(event);
          // release: see SourceLink::report_waits.
          report->link->report_waits.store(false, std::memory_order_release);
          delete report;
          break;
        }
        case EventKind::room_report:
          delete static_cast<RoomReportEvent*>(event);
          break;
        case EventKind::thread_stall:
          delete static_cast<ThreadStallEvent*>(event);
          break;
      }
    }
    polled.clear();
  }
};

Relay::Relay(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}

Relay::~Relay() { close({}, 0); }

Status Relay::start(const RelayConfig& config, std::unique_ptr<Relay>& relay) noexcept {
  if (config.threads < 1 || config.threads > kMaxThreads) return Status::invalid_argument;
  try {
    auto impl = std::make_unique<Impl>();
    RelayShared& shared = impl->shared;
    shared.config = config;
    shared.unix_offset_ns = unix_ns() - monotonic_ns();
    shared.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (shared.event_fd < 0) return Status::system_error;
    for (unsigned i = 0; i < config.threads; ++i)
      shared.threads.push_back(std::make_unique<RelayThread>(shared, i));
    impl->stops = std::make_unique<StopTask[]>(config.threads);
    relay.reset(new Relay(std::move(impl)));
    Status status = Status::ok;
    for (auto& thread : shared.threads)
      if (status == Status::ok) status = thread->start();
    if (status == Status::ok) status = relay->impl_->watchdog.start();
    if (status != Status::ok) {
      int error = errno;
      relay.reset();
      errno = error;
      return status;
    }
  } catch (const std::bad_alloc&) {
    relay.reset();
    return Status::out_of_memory;
  }
  return Status::ok;
}

int Relay::event_fd() const noexcept { return impl_->shared.event_fd; }

Status Relay::poll(size_t limit, std::vector<Event*>& events) noexcept {
  RelayShared& shared = impl_->shared;
  impl_->release_polled();
  uint64_t value;
  [[maybe_unused]] ssize_t got = ::read(shared.event_fd, &value, sizeof value);
  // acquire: pairs with post_event(). A producer that finds the flag set has pushed before; its
  // event is popped below. release: one that sets it anew comes after this.
  shared.event_signalled.exchange(false, std::memory_order_acq_rel);
  events.clear();
  Status status = Status::ok;
  bool somebody_waits = false;
  try {
    while (events.size() < limit) {
      // The places first: an event that is taken out of the queue can't be lost.
      impl_->reserve_one_more(impl_->polled);
      impl_->reserve_one_more(events);
      QueueNode* node = shared.events.pop();
      if (!node) break;
      auto* event = static_cast<Event*>(node);
      impl_->polled.push_back(event);
      events.push_back(event);
      if (event->kind == EventKind::text || event->kind == EventKind::binary) {
        auto& pending = static_cast<MessageEvent*>(event)->connection->texts_pending;
        // relaxed: see Connection::texts_pending; who pauses after this look posts an event.
        somebody_waits |= pending.load(std::memory_order_relaxed) >= kMaxTextsPending;
      }
    }
  } catch (const std::bad_alloc&) {
    if (events.empty()) status = Status::out_of_memory;
    limit = events.size();
  }
  // More may wait, or a connection waits for its texts to count as processed: the descriptor stays
  // readable, so that the next call comes.
  // acq_rel: as in post_event(), whose place this takes.
  if ((events.size() >= limit || somebody_waits) &&
      !shared.event_signalled.exchange(true, std::memory_order_acq_rel)) {
    uint64_t one = 1;
    [[maybe_unused]] ssize_t written = ::write(shared.event_fd, &one, sizeof one);
  }
  return status;
}

Status Relay::attach(int fd, std::string_view response, std::string_view greeting,
                     bool deliver_binary, uint64_t& id) noexcept {
  if (impl_->gate.is_shut()) return Status::closed;
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0) return Status::system_error;
  size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) return Status::system_error;
  if (type != SOCK_STREAM) return Status::invalid_argument;
  sockaddr_storage peer;
  size = sizeof peer;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) < 0) return Status::system_error;
  try {
    id = impl_->make_id(impl_->least_loaded(&ThreadCounters::connections));
    auto task = std::make_unique<AttachTask>();
    task->connection = std::make_unique<Connection>(id, -1);
    if (!response.empty() || !greeting.empty()) task->response = Text::opening(response, greeting);
    Connection& connection = *task->connection;
    connection.is_tcp = domain == AF_INET || domain == AF_INET6;
    connection.deliver_binary = deliver_binary;
    if (int on = 1; connection.is_tcp) {
      // A frame does not wait until the one before is acknowledged.
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      end_if_vanished(fd, impl_->shared.config.evict_after_ns);
    }
    GatePass pass(impl_->gate);
    if (!pass) return Status::closed;
    // Nothing can fail any more: from here the descriptor is the connection's.
    connection.fd = fd;
    RelayThread& thread = *impl_->owner(id);
    thread.counters.connections.add_shared(1);
    thread.post(task.release());
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::open_room(uint64_t& room) noexcept {
  try {
    uint64_t id = impl_->make_id(impl_->least_loaded(&ThreadCounters::rooms));
    auto counters = Ref<RoomCounters>::adopt(new RoomCounters);
    auto task = make_task([id, counters](RelayThread& t) { t.open_room(id, counters); });
    GatePass pass(impl_->gate);
    if (!pass) return Status::closed;
    {
      std::lock_guard lock(impl_->mutex);
      impl_->rooms.emplace(id, std::move(counters));
    }
    // Counted here already, so that rooms opened in a burst are spread.
    RelayThread& home = *impl_->owner(id);
    home.counters.rooms.add_shared(1);
    home.post(task.release());
    room = id;
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::close_room(uint64_t room, std::string_view text, uint16_t code) noexcept {
  try {
    Ref<Text> last = impl_->text_or_nothing(text);
    // The room's home first: what it has sent to the views stands before the end of them.
    auto task = make_task([room, code, last](RelayThread& home) {
      home.close_room(room, code, last);
      for (auto& thread : home.shared.threads) {
        thread->call([room, code, last](RelayThread& t) {
          t.close_view(room, CloseReason::room_closed, code, last);
        });
      }
    });
    GatePass pass(impl_->gate);
    if (!pass) return Status::closed;
    {
      std::lock_guard lock(impl_->mutex);
      if (!impl_->rooms.erase(room)) return Status::ok;
    }
    RelayThread& home = *impl_->owner(room);
    home.counters.rooms.add_shared(~uint64_t{0});
    home.post(task.release());
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::bind_source(const SourceBinding& binding, std::string_view reply) noexcept {
  try {
    Ref<RoomCounters> counters;
    {
      std::lock_guard lock(impl_->mutex);
      auto it = impl_->rooms.find(binding.room);
      if (it != impl_->rooms.end()) counters = it->second;
    }
    if (!counters) return close_connection(binding.connection, 4404, "no such room", {});
    SourceSession session;
    JitterConfig jitter{};
    jitter.channels = binding.format.channels;
    jitter.sample_rate = binding.format.sample_rate;
    jitter.frame_ms = binding.frame_ms;
    jitter.target_ms = binding.buffer_ms;
    session.jitter = JitterBuffer::create(jitter);
    session.link = SourceLink::create(binding.format, binding.connection, binding.room, counters);
    if (!session.jitter || !session.link) return Status::out_of_memory;
    session.info = Ref<StreamInfo>::adopt(new StreamInfo);
    session.info->stream = binding.stream;
    session.info->frame_ms = static_cast<uint16_t>(binding.frame_ms);
    session.info->channels = static_cast<uint16_t>(binding.format.channels);
    session.info->sample_rate = binding.format.sample_rate;
    session.announce = binding.announce;
    return impl_->call(binding.connection,
                       [id = binding.connection, session = std::move(session),
                        answer = impl_->text_or_nothing(reply)](RelayThread& t) mutable {
                         t.bind_source(id, std::move(session), std::move(answer));
                       });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::unbind_source(uint64_t connection) noexcept {
  try {
    return impl_->call(connection, [connection](RelayThread& t) { t.unbind_source(connection); });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::bind_listener(uint64_t connection, uint64_t room, const Subscription& subscription,
                            std::string_view reply, uint16_t known_stream, uint32_t burst_ms,
                            uint64_t from_timestamp) noexcept {
  try {
    Ref<RoomCounters> counters;
    {
      std::lock_guard lock(impl_->mutex);
      auto it = impl_->rooms.find(room);
      if (it != impl_->rooms.end()) counters = it->second;
    }
    if (!counters) return close_connection(connection, 4404, "no such room", {});
    return impl_->call(connection, [=, answer = impl_->text_or_nothing(reply)](RelayThread& t) {
      t.bind_listener(connection, room, counters, subscription, answer, known_stream,
                      {from_timestamp, burst_ms});
    });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::subscribe(uint64_t connection, const Subscription& subscription,
                        std::string_view reply) noexcept {
  try {
    return impl_->call(connection,
                       [=, answer = impl_->text_or_nothing(reply)](RelayThread& t) {
                         t.subscribe(connection, subscription, answer);
                       });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::send(uint64_t connection, std::string_view data, bool is_text, bool stamp) noexcept {
  try {
    WsOpcode opcode = is_text ? WsOpcode::text : WsOpcode::binary;
    Ref<Text> text = stamp ? Text::stamped(data) : Text::message(opcode, data);
    return impl_->call(connection, [connection, text = std::move(text)](RelayThread& t) {
      t.send_text(connection, text);
    });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::send_room(uint64_t room, std::string_view data) noexcept {
  try {
    Ref<Text> text = Text::message(WsOpcode::text, data);
    // Not by way of the room's home: a listener that was bound before this call is there before it.
    return impl_->call_all([room, text](RelayThread& t) { t.send_room(room, text); });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::report_lag(uint64_t connection, int64_t lag_ns) noexcept {
  try {
    return impl_->call(connection, [=](RelayThread& t) { t.report_lag(connection, lag_ns); });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::close_connection(uint64_t connection, uint16_t code, std::string_view detail,
                               std::string_view text) noexcept {
  try {
    return impl_->call(connection, [connection, code, reason = std::string(detail),
                                    last = impl_->text_or_nothing(text)](RelayThread& t) {
      t.close_connection(connection, CloseReason::closed, code, reason, last);
    });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

Status Relay::inspect(uint64_t room) noexcept {
  try {
    return impl_->call_all([room](RelayThread& t) { t.report_room(room); });
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

int64_t Relay::clock_us() const noexcept { return impl_->shared.clock_us(monotonic_ns()); }

std::vector<ThreadFigures> Relay::thread_figures() const {
  std::vector<ThreadFigures> all;
  for (const auto& thread : impl_->shared.threads) {
    const ThreadCounters& c = thread->counters;
    all.push_back({c.connections.get(), c.listeners.get(), c.rooms.get(), c.ticks.get(),
                   c.tick_late_ns_max.get(), c.frames_sent.get(), c.frames_dropped.get(),
                   c.frames_built.get(), c.bytes_sent.get(), c.bytes_received.get(),
                   c.sends.get(), c.packets.get(), c.evicted.get(), c.stalls.get(),
                   c.tick_late.get()});
  }
  return all;
}

std::vector<RoomFigures> Relay::room_figures() const {
  std::vector<RoomFigures> all;
  std::lock_guard lock(impl_->mutex);
  for (const auto& [room, c] : impl_->rooms) {
    all.push_back({room, c->blocks.get(), c->packets.get(), c->frames_sent.get(),
                   c->frames_dropped.get(), c->bytes_sent.get(), c->listeners.get()});
  }
  return all;
}

void Relay::close(std::string_view text, int64_t timeout_ns) noexcept {
  std::lock_guard lock(impl_->closing);
  if (!impl_->gate.shut()) return;
  int64_t deadline = monotonic_ns() + timeout_ns;
  Ref<Text> last;
  try {
    last = impl_->text_or_nothing(text);
  } catch (const std::bad_alloc&) {  // they are told by the close frame alone
  }
  for (auto& thread : impl_->shared.threads) {
    StopTask& stop = impl_->stops[thread->index];
    stop.text = last;
    stop.deadline_ns = deadline;
    thread->post(&stop);
  }
  for (auto& thread : impl_->shared.threads) thread->join();
  impl_->watchdog.stop();
}

}  // namespace relaycore
