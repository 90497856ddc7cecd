// The loop of a relay thread: readiness, commands, ticks, passes. The only file that knows epoll.
#include "relay_thread.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <utility>

#include "relay_send.h"

namespace relaycore {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSweepInterval = 50 * kMillisecond;
constexpr int kSweepsPerRound = 20;  // every connection is looked at once a second
constexpr int64_t kSliceNs = 200'000;
constexpr int64_t kSendSliceNs = 100'000;
constexpr int kEventsPerWait = 64;

void signal(int event_fd) noexcept {
  uint64_t one = 1;
  // An eventfd takes every write but the one that would overflow it; then it is signalled anyway.
  [[maybe_unused]] ssize_t written = ::write(event_fd, &one, sizeof one);
}

bool later(int64_t a, int64_t b) noexcept { return a > b; }

// A thread that is no more leaves a server that takes connections and says nothing to them. Whoever
// runs the process can start it again; nobody can mend the state that was being changed.
[[noreturn]] void die(unsigned index, const char* why) noexcept {
  char text[512];
  int n = snprintf(text, sizeof text,
                   "relaycore: relay thread %u died: %s. Nobody would hear anything any more, so the "
                   "process ends here.\n",
                   index, why);
  // To the descriptor itself: neither a lock of stdio nor memory is needed.
  [[maybe_unused]] ssize_t written = ::write(STDERR_FILENO, text, std::min<size_t>(n, sizeof text - 1));
  std::abort();
}

// A send leaves little of ours in the caches, so that touching the next connection would cost half
// a dozen misses: what it needs is fetched while this one's send runs.
void prefetch(const Connection& connection) noexcept {
  const char* bytes = reinterpret_cast<const char*>(&connection);
  __builtin_prefetch(bytes, 1);
  __builtin_prefetch(bytes + 64, 1);
}

}  // namespace

void RelayShared::post_event(QueueNode* event) noexcept {
  events.push(event);
  wake_poller();
}

void RelayShared::wake_poller() noexcept {
  // release: the consumer's exchange that finds the flag set, and so follows this one, sees what was
  // pushed, or counted; see Relay::poll. acquire: if it was set already, that exchange is to come.
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
    pthread_setname_np(thread_.native_handle(), ("relay-" + std::to_string(index)).c_str());
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
  // release: run_tasks() that takes the flag back sees the push. acquire: pairs with that.
  if (!task_signalled_.exchange(true, std::memory_order_acq_rel)) signal(wake_fd_);
}

void RelayThread::run() noexcept {
  try {
    scheduling_.begin(shared.config.realtime);
    loop();
  } catch (const std::exception& error) {
    die(index, error.what());
  } catch (...) {  // pthread_exit and pthread_cancel too
    die(index, "it was ended from outside");
  }
  due_ns_.store(INT64_MAX, std::memory_order_relaxed);  // relaxed: see due_ns()
}

void RelayThread::loop() {
  now_ns = monotonic_ns();
  while (true) {
    if (scheduling_.rest_if_due(now_ns)) now_ns = monotonic_ns();
    bool busy = !readers_.empty() || !talkers_.empty() || !ready_.empty() || !passes_.empty();
    if (!busy) arm_timer();
    note_due(busy ? now_ns : timer_armed_ns_);
    handle_events(busy);
    run_reads();
    run_tasks();
    run_ticks();
    if (now_ns >= next_sweep_ns_) sweep();
    run_sends();
    bury();
    if (stopping_ && (connections_.empty() || now_ns >= stop_deadline_ns_)) break;
  }
  finish_stopping();
}

// A tick that waits is due since its deadline, however often the loop comes round.
void RelayThread::note_due(int64_t at_ns) noexcept {
  if (!deadlines_.empty()) at_ns = std::min(at_ns, deadlines_.front().at_ns);
  due_ns_.store(at_ns, std::memory_order_relaxed);  // relaxed: see due_ns()
}

void RelayThread::arm_timer() {
  int64_t at = connections_.empty() && rooms_.empty() ? INT64_MAX : next_sweep_ns_;
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

void RelayThread::handle_events(bool busy) {
  epoll_event events[kEventsPerWait];
  int count = 0;
  // What waits there is work, too: a rest ends when there is none at all.
  if (busy || scheduling_.rests()) count = epoll_wait(epoll_fd_, events, kEventsPerWait, 0);
  if (!busy && count == 0) {
    scheduling_.end_rest();
    count = epoll_wait(epoll_fd_, events, kEventsPerWait, -1);
  }
  // A process that was stopped hears of that first; what came meanwhile goes before the ticks.
  if (count < 0 && errno == EINTR) count = epoll_wait(epoll_fd_, events, kEventsPerWait, 0);
  now_ns = monotonic_ns();
  note_due(now_ns);
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
    if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) connection.read_to_end = true;
    if (what & EPOLLOUT && connection.blocked) unblock(connection);
    if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
      connection.readable = true;
      read_soon(connection);
    }
  }
}

// One slice: whoever has more to say is heard again when the others, commands, ticks and sends have
// had their turn. So no source and no chatterbox holds up what is due. Those for whom there is no
// time left wait for the next sweep, each in its turn again.
void RelayThread::run_reads() {
  for (int64_t end = now_ns + kSliceNs; !readers_.empty() && now_ns < end;) {
    Connection& connection = readers_.pop();
    int64_t limit = time_to_read(connection);
    if (read_time_ns_ < limit) receive(connection);
    else held_.push(connection);
    int64_t begun = std::exchange(now_ns, monotonic_ns());
    if (limit != INT64_MAX) read_time_ns_ += now_ns - begun;
  }
}

void RelayThread::run_tasks() {
  // acquire: pairs with post(); the push of whoever set the flag, or found it set, is seen below.
  // release: whoever sets it anew comes after this, so that its signal is not lost.
  if (!task_signalled_.exchange(false, std::memory_order_acq_rel)) return;
  int64_t end = now_ns + kSliceNs;
  do {
    auto* task = static_cast<Task*>(tasks_.pop());
    if (!task) return;
    task->run(*this);
    task->dispose();
  } while (monotonic_ns() < end);
  // More may wait: come back after the ticks. acq_rel: as in post().
  if (!task_signalled_.exchange(true, std::memory_order_acq_rel)) signal(wake_fd_);
}

bool RelayThread::watch(Connection& connection) noexcept {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &connection;
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, connection.fd, &event) == 0;
}

// Closing a descriptor is not enough: while somebody holds a copy of it, epoll would go on naming
// a connection that is no more.
void RelayThread::unwatch(Connection& connection) noexcept {
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, connection.fd, nullptr);
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

// A slice each for messages, for those who can be sent to again, and for the passes: after them reads,
// commands and ticks have their turn.
void RelayThread::run_sends() {
  now_ns = monotonic_ns();
  run_talkers(now_ns + kSendSliceNs);
  run_ready(now_ns + kSendSliceNs);
  run_passes(now_ns + kSendSliceNs);
}

// Beyond capacity thousands can be sent to again, a dozen frames each. Whoever comes or asks for
// something does not wait behind all of them for the answer: messages have a slice of their own. They
// go without frames, but for those that changes owe.
void RelayThread::run_talkers(int64_t end_ns) {
  for (; !talkers_.empty() && now_ns < end_ns; now_ns = monotonic_ns()) {
    Connection* connection = find(talkers_.front());
    talkers_.pop_front();
    if (!connection) continue;
    connection->talks = false;
    send_due(*connection, true);
  }
}

void RelayThread::run_ready(int64_t end_ns) {
  for (; !ready_.empty() && now_ns < end_ns; now_ns = monotonic_ns()) send_due(ready_.pop());
}

// A pass goes on where it stopped; blocks that come meanwhile begin it anew from there, so that whoever
// has waited longest is next and gets all it has not had in one send.
void RelayThread::run_passes(int64_t end_ns) {
  int idle = 0;  // visits that found nothing to send cost little, but not nothing
  while (!passes_.empty()) {
    RoomView& view = *passes_.front();
    passes_.pop_front();
    while (view.visits_due) {
      --view.visits_due;
      if (view.pass_position >= view.listeners.size()) view.begin_round();
      Connection& connection = *view.listeners[view.pass_position++];
      if (view.pass_position < view.listeners.size()) prefetch(*view.listeners[view.pass_position]);
      if (!send_due(connection) && ++idle & 31) continue;
      now_ns = monotonic_ns();
      if (now_ns >= end_ns) {
        if (!view.visits_due) view.in_pass = false;
        else passes_.push_back(&view);  // another room's turn
        return;
      }
    }
    view.in_pass = false;
  }
}

// ---- at least once a second for every connection, and for rooms ----

void RelayThread::sweep() {
  next_sweep_ns_ = now_ns + kSweepInterval;
  read_time_ns_ = 0;
  while (!held_.empty()) read_soon(held_.pop());
  if (now_ns >= next_forget_ns_) {
    next_forget_ns_ = now_ns + 1000 * kMillisecond;
    for (auto& [id, room] : rooms_) room->forget_past(now_ns);
    for (auto& [id, view] : views_) view->forget_past(now_ns);
  }
  size_t share = connection_list_.size() / kSweepsPerRound + 1;
  for (size_t i = 0; i < share && !connection_list_.empty(); ++i) {
    if (sweep_position_ >= connection_list_.size()) sweep_position_ = 0;
    check_connection(*connection_list_[sweep_position_++]);
  }
}

void RelayThread::check_connection(Connection& connection) {
  const RelayConfig& config = shared.config;
  if (connection.closing != Closing::open && now_ns >= connection.deadline_ns) {
    destroy(connection, true);
    return;
  }
  // What waited for the end of a pause: in a room that plays no more nobody else comes by.
  if (connection.paused && now_ns >= connection.paused_until_ns) make_ready(connection);
  if (connection.closing != Closing::open) return;
  if (connection.deaf) {
    if (now_ns >= connection.deadline_ns) tell_fault(connection);
    return;
  }
  switch (connection.role) {
    case PeerRole::unregistered:
      if (now_ns >= connection.deadline_ns && !connection.deliver_binary)
        begin_close(connection, CloseReason::not_registered, 4408, "no registration in time");
      return;
    case PeerRole::source: {
      int64_t silence = now_ns - connection.source->last_received_ns;
      if (connection.read_paused) return;
      if (silence >= config.source_timeout_ns)
        begin_close(connection, CloseReason::source_silent, 4408, "nothing came from the source");
      else if (silence >= config.silence_timeout_ns && now_ns >= connection.next_ping_ns) {
        connection.next_ping_ns = now_ns + config.ping_interval_ns;
        enqueue(connection, Text::message(WsOpcode::ping, ""));
      }
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

}  // namespace relaycore
