// The loop of a relay thread: readiness, commands, ticks, passes. The only file that knows epoll.
#include "relay_thread.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "relay_send.h"

namespace relaycore {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSweepInterval = 50 * kMillisecond;
constexpr int kSweepsPerRound = 20;  // every connection is looked at once a second
constexpr int64_t kCloseTimeout = 3'000 * kMillisecond;
constexpr int kSendsPerSlice = 32;
constexpr int64_t kSliceNs = 200'000;
constexpr int kEventsPerWait = 64;
constexpr int kTasksPerStep = 256;
constexpr int kRealtimePriority = 10;

void signal(int event_fd) noexcept {
  uint64_t one = 1;
  // An eventfd takes every write but the one that would overflow it; then it is signalled anyway.
  [[maybe_unused]] ssize_t written = ::write(event_fd, &one, sizeof one);
}

bool later(int64_t a, int64_t b) noexcept { return a > b; }

// A send leaves little of ours in the caches, so that touching the next connection would cost half
// a dozen misses: what it needs is fetched while this one's send runs.
void prefetch(const Connection& connection) noexcept {
  const char* bytes = reinterpret_cast<const char*>(&connection);
  __builtin_prefetch(bytes, 1);
  __builtin_prefetch(bytes + 64, 1);
}

}  // namespace

int64_t monotonic_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

void RelayShared::post_event(QueueNode* event) noexcept {
  events.push(event);
  // acq_rel: the consumer's exchange that follows this one sees the push; see Relay::poll.
  if (!event_signalled.exchange(true, std::memory_order_acq_rel)) signal(event_fd);
}

// ---- life ----

RelayThread::RelayThread(RelayShared& shared, unsigned index)
    : shared(shared), index(index), plan_(std::make_unique<SendPlan>()) {}

RelayThread::~RelayThread() {
  while (QueueNode* node = tasks_.pop()) static_cast<Task*>(node)->dispose();
  for (int fd : {epoll_fd_, wake_fd_, timer_fd_})
    if (fd >= 0) ::close(fd);
}

Status RelayThread::start() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (epoll_fd_ < 0 || wake_fd_ < 0 || timer_fd_ < 0) return Status::system_error;
  for (int* fd : {&wake_fd_, &timer_fd_}) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.ptr = fd;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, *fd, &event) < 0) return Status::system_error;
  }
  read_buffer_ = std::make_unique<uint8_t[]>(kReadBytes);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    errno = error.code().value();
    return Status::system_error;
  }
  return Status::ok;
}

void RelayThread::join() {
  if (thread_.joinable()) thread_.join();
}

void RelayThread::post(Task* task) noexcept {
  tasks_.push(task);
  if (!task_signalled_.exchange(true, std::memory_order_acq_rel)) signal(wake_fd_);
}

// The audio may not wait for whatever else the machine does: SCHED_FIFO where that is allowed, else
// a short scheduling slice, with which the kernel lets a thread that wakes run sooner.
void RelayThread::use_realtime_scheduling() noexcept {
  prctl(PR_SET_TIMERSLACK, 1UL);
  if (!shared.config.realtime) return;
  sched_param priority{};
  priority.sched_priority = kRealtimePriority;
  if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0) return;
  // struct sched_attr of sched_setattr(2), which the C library does not declare everywhere.
  struct {
    uint32_t size = 48, policy = SCHED_OTHER;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 100'000, deadline = 0, period = 0;  // ns; the shortest slice there is
  } attributes;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

void RelayThread::run() noexcept {
  pthread_setname_np(pthread_self(), ("relay-" + std::to_string(index)).c_str());
  use_realtime_scheduling();
  now_ns = monotonic_ns();
  while (true) {
    bool busy = ready_head_ || !passes_.empty();
    if (!busy) arm_timer();
    handle_events(busy ? 0 : -1);
    run_tasks();
    run_ticks();
    if (now_ns >= next_sweep_ns_) sweep();
    run_passes();
    bury();
    if (stopping_ && (connections_.empty() || now_ns >= stop_deadline_ns_)) break;
  }
  finish_stopping();
}

void RelayThread::arm_timer() {
  int64_t at = next_sweep_ns_;
  if (connections_.empty()) at = INT64_MAX;
  if (!deadlines_.empty()) at = std::min(at, deadlines_.front().at_ns);
  if (stopping_) at = std::min(at, stop_deadline_ns_);
  if (at == timer_armed_ns_) return;
  timer_armed_ns_ = at;
  itimerspec when{};
  if (at != INT64_MAX) {
    when.it_value.tv_sec = at / 1'000'000'000;
    when.it_value.tv_nsec = std::max<int64_t>(at % 1'000'000'000, 1);
  }
  timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void RelayThread::handle_events(int timeout_ms) {
  epoll_event events[kEventsPerWait];
  int count = epoll_wait(epoll_fd_, events, kEventsPerWait, timeout_ms);
  now_ns = monotonic_ns();
  for (int i = 0; i < count; ++i) {
    if (events[i].data.ptr == &wake_fd_) {
      uint64_t value;
      [[maybe_unused]] ssize_t got = ::read(wake_fd_, &value, sizeof value);
      continue;
    }
    if (events[i].data.ptr == &timer_fd_) {
      timer_armed_ns_ = 0;
      continue;
    }
    auto& connection = *static_cast<Connection*>(events[i].data.ptr);
    uint32_t what = events[i].events;
    if (what & (EPOLLHUP | EPOLLERR)) connection.peer_gone = true;
    if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) connection.read_to_end = true;
    if (what & EPOLLOUT && connection.blocked) {
      connection.blocked = false;
      make_ready(connection);
    }
    if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
      connection.readable = true;
      receive(connection);
    }
  }
}

void RelayThread::run_tasks() {
  // acq_rel: a producer that finds the flag still set has pushed before; its task is seen below.
  if (!task_signalled_.exchange(false, std::memory_order_acq_rel)) return;
  for (int i = 0; i < kTasksPerStep; ++i) {
    auto* task = static_cast<Task*>(tasks_.pop());
    if (!task) return;
    task->run(*this);
    task->dispose();
  }
  // More may wait: come back after the ticks.
  if (!task_signalled_.exchange(true, std::memory_order_acq_rel)) signal(wake_fd_);
}

// ---- ticks ----

void RelayThread::schedule_tick(Room& room, int64_t deadline_ns) {
  if (room.scheduled) return;
  room.scheduled = true;
  deadlines_.push_back({deadline_ns, room.id});
  std::push_heap(deadlines_.begin(), deadlines_.end(),
                 [](const Deadline& a, const Deadline& b) { return later(a.at_ns, b.at_ns); });
}

void RelayThread::run_ticks() {
  auto order = [](const Deadline& a, const Deadline& b) { return later(a.at_ns, b.at_ns); };
  now_ns = monotonic_ns();
  // Each room at most once, so that readers and listeners have their turn between.
  for (size_t left = deadlines_.size(); left && deadlines_.front().at_ns <= now_ns; --left) {
    std::pop_heap(deadlines_.begin(), deadlines_.end(), order);
    uint64_t id = deadlines_.back().room;
    deadlines_.pop_back();
    Room* room = find_room(id);
    if (!room) continue;
    room->scheduled = false;
    if (int64_t next = room->tick(now_ns)) schedule_tick(*room, next);
  }
}

// ---- passes ----

void RelayThread::schedule_pass(RoomView& view) {
  if (view.in_pass) return;
  view.in_pass = true;
  passes_.push_back(&view);
}

void RelayThread::make_ready(Connection& connection) noexcept {
  if (connection.in_ready) return;
  connection.in_ready = true;
  connection.ready_previous = ready_tail_;
  connection.ready_next = nullptr;
  (ready_tail_ ? ready_tail_->ready_next : ready_head_) = &connection;
  ready_tail_ = &connection;
}

void RelayThread::leave_ready(Connection& connection) noexcept {
  if (!connection.in_ready) return;
  connection.in_ready = false;
  Connection* before = connection.ready_previous;
  Connection* after = connection.ready_next;
  (before ? before->ready_next : ready_head_) = after;
  (after ? after->ready_previous : ready_tail_) = before;
}

// One slice: after it, ticks, reads and commands have their turn. A pass goes on where it stopped;
// blocks that come meanwhile begin it anew from there, so that whoever has waited longest is next
// and gets all it has not had in one send.
void RelayThread::run_passes() {
  int64_t end = monotonic_ns() + kSliceNs;
  int sends = 0;
  auto spent = [&] {
    if (++sends >= kSendsPerSlice) return true;
    return (sends & 3) == 0 && (now_ns = monotonic_ns()) >= end;
  };
  while (ready_head_) {
    Connection& connection = *ready_head_;
    leave_ready(connection);
    send_due(connection);
    if (spent()) return;
  }
  while (!passes_.empty()) {
    RoomView& view = *passes_.front();
    passes_.pop_front();
    int idle = 0;  // visits that found nothing to send cost little, but not nothing
    while (view.visits_due) {
      --view.visits_due;
      if (view.pass_position >= view.listeners.size()) view.pass_position = 0;
      Connection& connection = *view.listeners[view.pass_position++];
      if (view.pass_position < view.listeners.size()) prefetch(*view.listeners[view.pass_position]);
      if (!send_due(connection)) {
        if (++idle & 31) continue;
      }
      if (spent() && view.visits_due) {
        passes_.push_back(&view);  // another room's turn
        return;
      }
    }
    view.in_pass = false;
    if (spent()) return;
  }
}

// ---- commands ----

Connection* RelayThread::find(uint64_t id) noexcept {
  auto it = connections_.find(id);
  return it == connections_.end() ? nullptr : it->second;
}

RoomView* RelayThread::find_view(uint64_t room) noexcept {
  auto it = views_.find(room);
  return it == views_.end() ? nullptr : it->second.get();
}

Room* RelayThread::find_room(uint64_t room) noexcept {
  auto it = rooms_.find(room);
  return it == rooms_.end() ? nullptr : it->second.get();
}

void RelayThread::attach(std::unique_ptr<Connection> owned, Ref<Text> response) {
  // From here it belongs to its ClosedEvent, and with that to the control plane in the end.
  Connection& connection = *owned.release();
  connections_.emplace(connection.id, &connection);
  connection.slot = static_cast<uint32_t>(connection_list_.size());
  connection_list_.push_back(&connection);
  counters.connections.add(1);
  connection.last_progress_ns = connection.last_received_ns = now_ns;
  connection.deadline_ns = now_ns + shared.config.register_timeout_ns;
  if (connections_.size() == 1) next_sweep_ns_ = now_ns + kSweepInterval;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &connection;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, connection.fd, &event) < 0) {
    connection.closed_event.detail = "the descriptor can't be watched";
    destroy(connection);
    return;
  }
  if (response && response->size()) enqueue(connection, std::move(response));
  if (stopping_) begin_close(connection, CloseReason::shutdown, 1001, "server going away");
}

void RelayThread::bind_listener(uint64_t id, uint64_t room, Ref<RoomCounters> room_counters,
                                const Subscription& subscription, Ref<Text> reply,
                                uint16_t known_stream, uint32_t burst_ms, uint64_t from) {
  Connection* connection = find(id);
  if (!connection || connection->closing != Closing::open) return;
  detach_from_room(*connection);
  RoomView* view = find_view(room);
  if (!view) {
    view = views_
               .emplace(room, std::make_unique<RoomView>(*this, room, std::move(room_counters)))
               .first->second.get();
    home_of(room).call([room, thread = index](RelayThread& home) {
      if (Room* found = home.find_room(room)) {
        found->subscribe(thread);
      } else {
        home.shared.threads[thread]->call([room](RelayThread& t) {
          t.close_view(room, CloseReason::room_closed, 4410, {});
        });
      }
    });
  }
  connection->role = PeerRole::listener;
  connection->stream = known_stream;
  connection->join_burst_ms = burst_ms;
  connection->join_from = from;
  connection->next_ping_ns = now_ns + shared.config.ping_interval_ns;
  connection->last_progress_ns = now_ns;
  counters.listeners.add(1);
  Delivery delivery;
  delivery.layout = view->acquire_layout(LayoutKey(subscription));
  delivery.interval_ms = static_cast<uint16_t>(subscription.interval_ms);
  delivery.levels = subscription.levels;
  // A listener begins with its layout; the answer stands before its first frame.
  connection->delivery = delivery;
  ++delivery.layout->listeners;
  if (reply) enqueue(*connection, std::move(reply));
  view->add(*connection);
  make_ready(*connection);
}

void RelayThread::bind_source(uint64_t id, SourceSession session, Ref<Text> reply) {
  Connection* connection = find(id);
  if (!connection || connection->closing != Closing::open) return;
  detach_from_room(*connection);
  connection->role = PeerRole::source;
  connection->source = std::make_unique<SourceState>();
  connection->source->link = session.link;
  connection->last_received_ns = now_ns;
  if (reply) enqueue(*connection, std::move(reply));
  uint64_t room = session.link->room;
  home_of(room).call([room, id, session = std::move(session)](RelayThread& home) mutable {
    if (Room* found = home.find_room(room)) {
      found->begin_stream(std::move(session));
    } else {
      home.shared.threads[thread_of(id)]->call([id](RelayThread& t) {
        t.close_connection(id, CloseReason::room_closed, 4410, "room closed", {});
      });
    }
  });
}

void RelayThread::unbind_source(uint64_t id) {
  Connection* connection = find(id);
  if (!connection || connection->role != PeerRole::source) return;
  Ref<SourceLink> link = connection->source->link;
  detach_from_room(*connection);
  connection->deadline_ns = now_ns + shared.config.register_timeout_ns;
}

void RelayThread::subscribe(uint64_t id, const Subscription& subscription, Ref<Text> reply) {
  Connection* connection = find(id);
  if (!connection || connection->role != PeerRole::listener || connection->closing != Closing::open)
    return;
  Delivery change;
  change.layout = connection->view->acquire_layout(LayoutKey(subscription));
  change.interval_ms = static_cast<uint16_t>(subscription.interval_ms);
  change.levels = subscription.levels;
  enqueue(*connection, std::move(reply), change);
}

void RelayThread::send_text(uint64_t id, Ref<Text> text) {
  Connection* connection = find(id);
  if (connection && connection->closing == Closing::open) enqueue(*connection, std::move(text));
}

void RelayThread::send_room(uint64_t room, const Ref<Text>& text) {
  RoomView* view = find_view(room);
  if (!view) return;
  // Backwards: a connection that is ended here takes itself off the list.
  for (size_t i = view->listeners.size(); i-- > 0;) {
    Connection& connection = *view->listeners[i];
    if (connection.closing == Closing::open)
      enqueue(connection, text, {}, connection.join_pending ? 0 : view->blocks.head());
  }
}

void RelayThread::close_connection(uint64_t id, CloseReason reason, uint16_t code,
                                   std::string detail, Ref<Text> text) {
  Connection* connection = find(id);
  if (!connection || connection->closing != Closing::open) return;
  if (text) enqueue(*connection, std::move(text));
  begin_close(*connection, reason, code, detail);
}

void RelayThread::close_view(uint64_t room, CloseReason reason, uint16_t code,
                             const Ref<Text>& text) {
  RoomView* view = find_view(room);
  if (!view) return;
  std::vector<Connection*> listeners = view->listeners;
  for (Connection* connection : listeners) {
    if (connection->closing != Closing::open) continue;
    uint64_t not_before = connection->join_pending ? 0 : view->blocks.head();
    if (text) enqueue(*connection, text, {}, not_before);
    begin_close(*connection, reason, code, "room closed", not_before);
  }
}

void RelayThread::open_room(uint64_t room, Ref<RoomCounters> room_counters) {
  rooms_.emplace(room, std::make_unique<Room>(*this, room, std::move(room_counters)));
}

void RelayThread::close_room(uint64_t room, uint16_t code, const Ref<Text>& text) {
  auto it = rooms_.find(room);
  if (it == rooms_.end()) return;
  if (uint64_t source = it->second->source()) {
    shared.threads[thread_of(source)]->call([source, code, text](RelayThread& t) {
      t.close_connection(source, CloseReason::room_closed, code, "room closed", text);
    });
  }
  it->second->end_stream();
  rooms_.erase(it);  // a deadline that still names it is passed over
}

void RelayThread::report_room(uint64_t room) {
  RoomView* view = find_view(room);
  if (!view) return;
  auto* event = new RoomReportEvent(EventKind::room_report, room);
  event->thread = index;
  for (const Connection* c : view->listeners) {
    uint64_t head = view->blocks.head();
    event->listeners.push_back({c->id, c->delivery.layout->hash(), c->frames_sent,
                                c->frames_dropped, c->bytes_sent,
                                static_cast<uint32_t>(c->join_pending ? 0 : head - c->cursor),
                                lag_ms(*c), c->round_trip_ns / 1e6});
  }
  for (const auto& [hash, layout] : view->layouts)
    event->layouts.push_back({hash, layout->listeners, layout->frames_built, layout->frames_sent});
  shared.post_event(event);
}

void RelayThread::resume_reading(uint64_t id) {
  Connection* connection = find(id);
  if (connection && connection->read_paused) {
    connection->read_paused = false;
    receive(*connection);
  }
}

// ---- queueing and closing ----

void RelayThread::enqueue(Connection& connection, Ref<Text> text, Delivery change,
                          uint64_t not_before, bool is_close) {
  auto entry = std::make_unique<OutboxEntry>();
  if (text) connection.outbox_bytes += text->size();
  entry->text = std::move(text);
  entry->change = change;
  entry->is_close = is_close;
  // Behind what waits already, so in its order also where frames are concerned.
  entry->not_before = not_before;
  if (OutboxEntry* tail = connection.outbox_tail) {
    entry->not_before = std::max(not_before, tail->not_before);
    connection.outbox_tail = entry.get();
    tail->next = std::move(entry);
  } else {
    connection.outbox_tail = entry.get();
    connection.outbox = std::move(entry);
  }
  if (connection.outbox_bytes > kMaxOutboxBytes) {
    connection.closed_event.reason = CloseReason::too_slow;
    connection.closed_event.code = 4413;
    connection.closed_event.detail = "messages piled up unread";
    connection.doomed = true;
  }
  make_ready(connection);
}

void RelayThread::begin_close(Connection& connection, CloseReason reason, uint16_t code,
                              std::string_view detail, uint64_t not_before) {
  if (connection.closing != Closing::open) return;
  connection.closing = Closing::queued;
  connection.closed_event.reason = reason;
  connection.closed_event.code = code;
  connection.closed_event.detail = detail;
  connection.deadline_ns = now_ns + kCloseTimeout;
  enqueue(connection, Text::close(code, detail.substr(0, 123)), {}, not_before, true);
}

void RelayThread::detach_from_room(Connection& connection) {
  if (connection.role == PeerRole::listener) {
    RoomView& view = *connection.view;
    --connection.delivery.layout->listeners;
    view.release_layout(connection.delivery.layout);
    if (connection.ramp_from) view.release_layout(connection.ramp_from);
    for (OutboxEntry* e = connection.outbox.get(); e; e = e->next.get()) {
      if (e->change.layout) view.release_layout(std::exchange(e->change.layout, nullptr));
      e->not_before = 0;
    }
    connection.delivery = {};
    connection.ramp_from = nullptr;
    connection.ping_outstanding = connection.lagging = false;
    view.remove(connection);
    counters.listeners.add(~uint64_t{0});
    if (view.listeners.empty()) deserted_views_.push_back(view.room);
  } else if (connection.role == PeerRole::source) {
    Ref<SourceLink> link = connection.source->link;
    bool drained = connection.fd >= 0 && connection.closing == Closing::open;
    home_of(link->room).call([link, drained](RelayThread& home) {
      if (Room* room = home.find_room(link->room)) room->finish_stream(link.get(), drained);
    });
    connection.source.reset();
  }
  connection.role = PeerRole::unregistered;
}

void RelayThread::destroy(Connection& connection, bool reset) {
  if (connection.fd < 0) return;
  ClosedEvent& event = connection.closed_event;
  event.frames_sent = connection.frames_sent;
  event.frames_dropped = connection.frames_dropped;
  event.bytes_sent = connection.bytes_sent;
  event.bytes_received = connection.bytes_received;
  event.lag_ms = lag_ms(connection);
  if (reset) {
    // Frees what the kernel still holds for a peer that does not read.
    linger now{1, 0};
    setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  ::close(connection.fd);  // leaves epoll too: nobody else has the descriptor
  connection.fd = -1;
  detach_from_room(connection);
  leave_ready(connection);
  while (connection.outbox) connection.outbox = std::move(connection.outbox->next);
  connection.outbox_tail = nullptr;
  connection.partial = {};
  connection.backlog = {};
  Connection* last = connection_list_.back();
  connection_list_[connection.slot] = last;
  last->slot = connection.slot;
  connection_list_.pop_back();
  connections_.erase(connection.id);
  counters.connections.set(connections_.size());
  ended_.push_back(&connection);
}

void RelayThread::bury() {
  for (Connection* connection : ended_) shared.post_event(&connection->closed_event);
  ended_.clear();
  for (uint64_t room : deserted_views_) {
    RoomView* view = find_view(room);
    if (!view || !view->listeners.empty()) continue;
    if (view->in_pass) std::erase(passes_, view);
    views_.erase(room);
    home_of(room).call([room, thread = index](RelayThread& home) {
      if (Room* found = home.find_room(room)) found->unsubscribe(thread);
    });
  }
  deserted_views_.clear();
}

// ---- once a second for every connection ----

void RelayThread::sweep() {
  next_sweep_ns_ = now_ns + kSweepInterval;
  size_t share = connection_list_.size() / kSweepsPerRound + 1;
  for (size_t i = 0; i < share && !connection_list_.empty(); ++i) {
    if (sweep_position_ >= connection_list_.size()) sweep_position_ = 0;
    check_connection(*connection_list_[sweep_position_++]);
  }
}

void RelayThread::check_connection(Connection& connection) {
  const RelayConfig& config = shared.config;
  if (connection.closing != Closing::open) {
    if (now_ns >= connection.deadline_ns) destroy(connection, true);
    return;
  }
  switch (connection.role) {
    case PeerRole::unregistered:
      if (now_ns >= connection.deadline_ns && !connection.deliver_binary)
        begin_close(connection, CloseReason::not_registered, 4408, "no registration in time");
      return;
    case PeerRole::source: {
      int64_t silence = now_ns - connection.last_received_ns;
      if (connection.read_paused) return;
      if (silence >= config.source_timeout_ns)
        begin_close(connection, CloseReason::source_silent, 4408, "nothing came from the source");
      else if (silence >= config.silence_timeout_ns)
        enqueue(connection, Text::message(WsOpcode::ping, ""));
      return;
    }
    case PeerRole::listener:
      check_stalled(connection);
      if (connection.fd >= 0 && now_ns >= connection.next_ping_ns) make_ready(connection);
      return;
  }
}

void RelayThread::finish_stopping() {
  while (!connection_list_.empty()) destroy(*connection_list_.back(), true);
  bury();
  rooms_.clear();
}

void RelayThread::stop(Ref<Text> text, int64_t deadline_ns) {
  stopping_ = true;
  stop_deadline_ns_ = deadline_ns;
  for (auto& [id, room] : rooms_) room->end_stream();
  std::vector<Connection*> all = connection_list_;
  for (Connection* connection : all) {
    if (connection->closing != Closing::open) continue;
    if (text) enqueue(*connection, text);
    begin_close(*connection, CloseReason::shutdown, 1001, "server going away");
  }
}

}  // namespace relaycore
