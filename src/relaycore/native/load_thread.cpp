#include "load_thread.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

namespace relaycore {

namespace {

constexpr size_t kScratchBytes = 256 * 1024;
constexpr size_t kMaxUnsent = 1 << 20;
constexpr size_t kMaxUnanswered = 4096;        // texts of one connection
constexpr int kEvents = 512;                   // handled before commands and deadlines have a turn
constexpr int64_t kLookNs = 1'000'000'000;     // between looks for those that wait in vain
constexpr int64_t kLimitedNs = 50'000'000;     // between reads of a limited connection
constexpr int kPriority = 5;  // of SCHED_FIFO, below a relay's

// How long this thread wanted a processor and had none; 0 where the kernel does not tell.
int64_t waited_ns() noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat",
                static_cast<long>(syscall(SYS_gettid)));
  std::FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  long long ran = 0, waited = 0;
  const int fields = std::fscanf(file, "%lld %lld", &ran, &waited);
  std::fclose(file);
  return fields == 2 ? waited : 0;
}

}  // namespace

LoadThread::LoadThread(const LoadTarget& target, unsigned index, unsigned stride)
    : target_(target),
      index_(index),
      stride_(stride),
      in_flight_limit_(std::max(1u, target.config.in_flight / std::max(1u, stride))),
      rejoin_(target.config.rejoin),
      clock_known_(target.config.clock == LoadClock::given),
      clock_offset_us_(target.config.clock_offset_us),
      scratch_(kScratchBytes) {}

LoadThread::~LoadThread() {
  if (thread_.joinable()) {
    call([this] { quit_ = true; });
    thread_.join();
  }
  for (LoadConnection& c : connections_) c.stream.close();
  if (epoll_ >= 0) ::close(epoll_);
  if (wake_ >= 0) ::close(wake_);
}

bool LoadThread::open() noexcept {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{EPOLLIN, {.ptr = nullptr}};  // null: a call
  return epoll_ >= 0 && wake_ >= 0 && epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0;
}

void LoadThread::start() {
  // Signals are for the threads of whoever uses this.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void LoadThread::call(const std::function<void()>& task) {
  Call item{&task, nullptr};
  {
    std::unique_lock lock(mutex_);
    calls_.push_back(&item);
    eventfd_write(wake_, 1);
    called_.wait(lock, [&] { return item.done; });
  }
  if (item.error) std::rethrow_exception(item.error);
}

void LoadThread::run_calls() {
  std::vector<Call*> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  if (calls.empty()) return;
  for (Call* item : calls) {
    try {
      (*item->task)();
    } catch (...) {
      item->error = std::current_exception();
    }
  }
  const std::lock_guard lock(mutex_);
  for (Call* item : calls) item->done = true;
  called_.notify_all();
}

void LoadThread::run() noexcept {
  char name[16];
  std::snprintf(name, sizeof name, stride_ == 0 ? "load-sources" : "load-%u", index_);
  pthread_setname_np(pthread_self(), name);
  if (target_.config.realtime) {
    sched_param priority{};
    priority.sched_priority = kPriority;
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);  // refused: as any other thread
  }
  figures_.is_sources = stride_ == 0;
  figures_.since_ns = monotonic_ns();
  wait_base_ns_ = waited_ns();
  epoll_event events[kEvents];
  int64_t woke = 0;
  size_t handled = 0;  // events since then
  bool is_done = true;  // with all that was ready then
  while (true) {
    run_calls();
    if (quit_) return;
    start_connections();
    const int64_t now = monotonic_ns();
    send_packets(now);
    serve_limited(now);
    give_up(now);
    ask_clock(now);
    int64_t wait_ms = 0;  // the rest has waited since it woke
    if (is_done) {
      if (woke != 0) figures_.batch.add((monotonic_ns() - woke) / 1000);
      const int64_t wait = std::max<int64_t>(next_deadline(now) - now, 0);
      wait_ms = std::min<int64_t>(wait / 1'000'000 + 1, 1000);
    }
    const int n = epoll_wait(epoll_, events, kEvents, static_cast<int>(wait_ms));
    const int64_t returned = monotonic_ns();
    if (target_.config.kernel_times) unix_offset_ns_ = clock_ns(CLOCK_REALTIME) - returned;
    if (std::exchange(is_done, n < kEvents)) {
      woke = returned;
      handled = 0;
    }
    // Events come in the order in which sockets were ready: after so many of them as there are
    // sockets nobody is left that was ready when it woke, even if there always is more.
    handled += static_cast<size_t>(std::max(n, 0));
    is_done |= handled > connections_.size();
    for (int i = 0; i < n; ++i) {
      if (events[i].data.ptr == nullptr) {
        eventfd_t count;
        eventfd_read(wake_, &count);
      } else {
        serve(*static_cast<LoadConnection*>(events[i].data.ptr), events[i].events);
      }
    }
  }
}

int64_t LoadThread::next_deadline(int64_t now) const noexcept {
  int64_t at = now + 1'000'000'000;
  if (!retries_.empty() && entering_ < in_flight_limit_) at = std::min(at, retries_.front().at_ns);
  if (!plans_.empty() && entering_ < in_flight_limit_) at = std::min(at, due_ns(plans_.front()));
  if (!limited_.empty()) at = std::min(at, limited_at_ns_ + kLimitedNs);
  if (target_.config.clock == LoadClock::ping && !connections_.empty())
    at = std::min(at, ask_clock_at_ns_);
  if (figures_.is_sources)
    for (const LoadConnection& c : connections_)
      if (c.sends()) at = std::min(at, pacing_[c.number].due_ns());
  return at;
}

// ---- commands ----

void LoadThread::add_listeners(std::shared_ptr<const LoadListeners> listeners, size_t first) {
  const size_t ahead = first % stride_;
  const size_t mine = index_ >= ahead ? index_ - ahead : index_ + stride_ - ahead;
  if (mine < listeners->count)
    figures_.connections += (listeners->count - mine + stride_ - 1) / stride_;
  // One without a listener for this thread keeps the next one waiting all the same.
  plans_.push_back({std::move(listeners), mine, 0});
}

void LoadThread::add_sources(std::shared_ptr<const LoadSources> sources) {
  const size_t count = sources->registers.size();
  const size_t samples = sources->format.sample_rate * sources->frame_ms / 1000 + 1;
  const auto noise = std::make_shared<const std::string>(load_noise(sources->format, samples));
  for (size_t i = 0; i < count; ++i) {
    const int64_t period_ns = int64_t{sources->frame_ms} * 1'000'000;
    LoadConnection& c = connections_.emplace_back();
    c.number = parts_.size();
    c.is_source = true;
    c.started_ns = monotonic_ns();
    c.record.state = LoadRecord::entering;
    parts_.push_back({nullptr, sources, i, noise});
    pacing_.emplace_back(sources->format, sources->frame_ms,
                         period_ns * static_cast<int64_t>(i) / static_cast<int64_t>(count));
    // Those that are to come wait as those that were lost do.
    retries_.push_front({0, &c});
  }
  figures_.connections += count;
}

void LoadThread::stop_sources() {
  static constexpr std::string_view kGoodbye = R"({"type":"unregisterSource"})";
  retries_.clear();
  for (LoadConnection& c : connections_) {
    if (std::exchange(c.is_stopped, true)) continue;
    if (c.state == LoadConnection::State::joined)
      transmit(c, ws_client_header(WsOpcode::text, kGoodbye.size()), kGoodbye);
    else if (c.is_entering())
      lose(c);  // else it might take the room from whoever is next
  }
}

void LoadThread::limit(size_t local, int64_t bytes_per_s) {
  LoadConnection& c = connections_[local];
  const bool was_limited = c.bytes_per_s >= 0;
  c.bytes_per_s = bytes_per_s;
  c.allowance = 0;
  if (bytes_per_s >= 0 && !was_limited) limited_.push_back(&c);
  if (bytes_per_s < 0 && was_limited) std::erase(limited_, &c);
  if (c.state == LoadConnection::State::joined) watch(c);
}

void LoadThread::drop(size_t local) {
  if (connections_[local].state == LoadConnection::State::joined) lose(connections_[local]);
}

void LoadThread::send_text(size_t local, std::string_view text) {
  LoadConnection& c = connections_[local];
  if (c.state != LoadConnection::State::joined) return;
  ++figures_.sent;
  if (const auto type = json_text(text, R"("type":)"); type == "setMix" || type == "subscribe") {
    if (c.asked_ns.size() == kMaxUnanswered)
      return on_error(c, "the server does not answer what is sent to it");
    c.asked_ns.push_back(monotonic_ns());
  }
  transmit(c, ws_client_header(WsOpcode::text, text.size()), text);
}

void LoadThread::rejoin(bool on) {
  if (std::exchange(rejoin_, on) == on) return;
  if (!on) {
    std::erase_if(retries_, [](const Retry& retry) { return retry.connection->is_lost; });
    return;
  }
  for (LoadConnection& c : connections_)
    if (c.state == LoadConnection::State::dead && c.is_lost && c.returns())
      retries_.push_back({0, &c});
}

LoadFigures LoadThread::figures(bool restart) {
  figures_.taken_ns = monotonic_ns();
  figures_.clock_known = clock_known_;
  figures_.clock_offset_us = clock_offset_us_;
  const int64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), waited = waited_ns();
  figures_.cpu_ns = cpu - cpu_base_ns_;
  figures_.wait_ns = waited - wait_base_ns_;
  LoadFigures out = figures_;
  if (!restart) return out;
  LoadFigures fresh;
  fresh.is_sources = out.is_sources;
  fresh.connections = out.connections;
  fresh.settled = out.settled;
  fresh.joined = out.joined;
  fresh.alive = out.alive;
  fresh.round_trip_us = out.round_trip_us;
  fresh.since_ns = out.taken_ns;
  cpu_base_ns_ = cpu;
  wait_base_ns_ = waited;
  figures_ = std::move(fresh);
  return out;
}

// ---- connections ----

int64_t LoadThread::due_ns(const Plan& plan) noexcept {
  const LoadListeners& listeners = *plan.listeners;
  if (listeners.per_second <= 0) return plan.begun_ns;
  const auto number = static_cast<double>(std::min(plan.next, listeners.count));
  return plan.begun_ns + static_cast<int64_t>(std::min(number / listeners.per_second * 1e9, 1e18));
}

void LoadThread::start_connections() {
  const int64_t now = monotonic_ns();
  while (!plans_.empty() && entering_ < in_flight_limit_) {
    Plan& plan = plans_.front();
    if (plan.begun_ns == 0) plan.begun_ns = now;  // not before the plans ahead of it are done
    if (due_ns(plan) > now) break;
    const LoadListeners& listeners = *plan.listeners;
    if (plan.next >= listeners.count) {
      plans_.pop_front();
      continue;
    }
    LoadConnection& c = connections_.emplace_back();
    c.number = parts_.size();
    c.record.group = listeners.group;
    c.record.state = LoadRecord::entering;
    c.started_ns = now;
    c.asks = !listeners.asks.empty();
    parts_.push_back({plan.listeners, nullptr, plan.next, nullptr});
    plan.next += stride_;
    connect_one(c);
  }
  while (!retries_.empty() && retries_.front().at_ns <= now && entering_ < in_flight_limit_) {
    LoadConnection& c = *retries_.front().connection;
    retries_.pop_front();
    if (c.is_lost) ++figures_.attempts;
    connect_one(c);
  }
}

// It counts as entering from here until it has joined or failed.
void LoadThread::connect_one(LoadConnection& c) {
  c.restart();
  c.attempted_ns = monotonic_ns();
  ++entering_;
  ++figures_.alive;
  const int fd = socket(target_.address.storage.ss_family,
                        SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return on_error(c, std::strerror(errno));
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (!c.stream.open(fd, target_.tls.get())) return on_error(c, "TLS: no memory for a connection");
  if (target_.config.kernel_times) setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
  if (!target_.bind.empty()) {
    // The port is chosen on connecting: each address has all of them for this server.
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    const size_t number = c.number * std::max(1u, stride_) + index_;
    const LoadAddress& from = target_.bind[number % target_.bind.size()];
    if (::bind(fd, from.get(), from.size) != 0) return on_error(c, std::strerror(errno));
  }
  if (connect(fd, target_.address.get(), target_.address.size) != 0 && errno != EINPROGRESS)
    return on_error(c, std::strerror(errno));
  // The request goes with the first EPOLLOUT; reading is edge-triggered from then on.
  epoll_event event{EPOLLOUT | EPOLLONESHOT, {.ptr = &c}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) on_error(c, std::strerror(errno));
}

// Those whose server has not let them in for so long have failed.
void LoadThread::give_up(int64_t now) {
  if (entering_ == 0 || now - gave_up_at_ns_ < kLookNs) return;
  gave_up_at_ns_ = now;
  for (LoadConnection& c : connections_) {
    if (!c.is_entering() || now - c.attempted_ns < target_.config.answer_ns) continue;
    char what[48];
    std::snprintf(what, sizeof what, "no answer in %g s",
                  static_cast<double>(target_.config.answer_ns) / 1e9);
    on_error(c, what);
  }
}

void LoadThread::watch(LoadConnection& c) {
  uint32_t events = EPOLLRDHUP | EPOLLET;
  if (c.bytes_per_s < 0 || c.state != LoadConnection::State::joined) events |= EPOLLIN;
  if (!c.unsent.empty()) events |= EPOLLOUT;
  epoll_event event{events, {.ptr = &c}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, c.stream.fd(), &event);
}

void LoadThread::serve(LoadConnection& c, uint32_t events) {
  if (!c.alive()) return;
  if (c.state == LoadConnection::State::connecting) return connect_on(c, events);
  if (events & EPOLLOUT) flush(c);
  // A limited one whose connection has ended is read to the end, to know why.
  const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (c.alive() && ((events & EPOLLIN) || ended)) read_from(c, ended);
}

void LoadThread::read_from(LoadConnection& c, bool to_the_end) {
  // A short read has emptied a plain socket: no need to be told EAGAIN. TLS comes in records.
  const int fd = c.stream.fd();
  for (bool more = true; more && c.alive();) {
    const ssize_t n = receive(c, scratch_.size());
    if (n > 0) {
      c.feed(scratch_.data(), static_cast<size_t>(n), *this);
      if (c.stream.fd() != fd || c.state == LoadConnection::State::connecting)
        return;  // it has another socket now
      more = static_cast<size_t>(n) == scratch_.size() || c.stream.is_tls() || to_the_end;
    } else if (n == 0) {
      on_error(c, "closed by the server without a close frame");
    } else {
      if (errno != EAGAIN && errno != EINTR)
        on_error(c, errno == EPROTO ? c.stream.what_failed() : std::strerror(errno));
      more = false;
    }
  }
}

// The socket is connected, or the TLS handshake has gone a step further.
void LoadThread::connect_on(LoadConnection& c, uint32_t events) {
  if (events & (EPOLLOUT | EPOLLERR)) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c.stream.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return on_error(c, std::strerror(error));
    watch(c);
  }
  if (const int done = c.stream.handshake(); done == 1) {
    const Part& part = parts_[c.number];
    if (c.asks) {
      c.state = LoadConnection::State::asking;
      const std::string& body = part.listeners->asks[part.number % part.listeners->asks.size()];
      transmit(c, "POST " + target_.config.join_path + " HTTP/1.1\r\nHost: " +
                      target_.config.authority +
                      "\r\nContent-Type: application/json\r\nContent-Length: " +
                      std::to_string(body.size()) + "\r\n\r\n",
               body);
    } else {
      request(c);
    }
  } else if (done == 0 || errno != EAGAIN) {
    on_error(c, done == 0         ? "closed in the TLS handshake"
                : errno == EPROTO ? c.stream.what_failed()
                                  : std::strerror(errno));
  }
}

void LoadThread::request(LoadConnection& c) {
  c.state = target_.config.stream ? LoadConnection::State::requested
                                  : LoadConnection::State::handshake;
  transmit(c, target_.request);
}

// recv() into scratch_; with now_ns_, and when the last of the bytes had come.
ssize_t LoadThread::receive(LoadConnection& c, size_t size) {
  ssize_t n;
  int error;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timespec))];
  iovec bytes{scratch_.data(), size};
  msghdr message{};
  if (!target_.config.kernel_times) {
    n = c.stream.recv(scratch_.data(), size);
    error = errno;  // clock_gettime may change it
  } else {
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    n = recvmsg(c.stream.fd(), &message, 0);
    error = errno;
  }
  arrived_ns_ = now_ns_ = monotonic_ns();
  errno = error;
  if (n <= 0) return n;
  figures_.bytes += static_cast<uint64_t>(n);
  c.record.bytes += static_cast<uint64_t>(n);
  ++figures_.reads;
  // The first packets after the option was set may come without: they count as read.
  const cmsghdr* item = target_.config.kernel_times ? CMSG_FIRSTHDR(&message) : nullptr;
  if (item && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_TIMESTAMPNS) {
    timespec at{};
    std::memcpy(&at, CMSG_DATA(item), sizeof at);
    arrived_ns_ = at.tv_sec * 1'000'000'000LL + at.tv_nsec - unix_offset_ns_;
  }
  return n;
}

void LoadThread::transmit(LoadConnection& c, std::string_view bytes, std::string_view more) {
  out_.assign(bytes).append(more);
  if (c.unsent.size() > kMaxUnsent)
    return on_error(c, "the server does not read what is sent to it");
  size_t sent = 0;
  if (c.unsent.empty()) {
    const ssize_t n = c.stream.send(out_.data(), out_.size());
    if (n < 0 && errno != EAGAIN && errno != EINTR) return on_error(c, std::strerror(errno));
    sent = n > 0 ? static_cast<size_t>(n) : 0;
  }
  if (sent < out_.size()) {
    const bool waits = !c.unsent.empty();
    c.unsent.append(out_, sent);
    if (!waits) watch(c);
  }
  if (c.is_source) return;
  // A socket that answers is taken for interactive: it then acknowledges every second frame, from
  // the softirq that delivers it, which on loopback the sender pays for. Servers that ping would
  // pay what those that don't leave to us. This ends that mode: whoever reads, acknowledges.
  const int on = 1;
  setsockopt(c.stream.fd(), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

void LoadThread::flush(LoadConnection& c) {
  if (c.unsent.empty()) return;
  const ssize_t n = c.stream.send(c.unsent.data(), c.unsent.size());
  if (n < 0 && errno != EAGAIN && errno != EINTR) return on_error(c, std::strerror(errno));
  if (n > 0) c.unsent.erase(0, static_cast<size_t>(n));
  if (c.unsent.empty()) watch(c);
}

void LoadThread::serve_limited(int64_t now) {
  if (limited_.empty() || now - limited_at_ns_ < kLimitedNs) return;
  const int64_t passed_ms = std::min<int64_t>((now - limited_at_ns_) / 1'000'000, 1000);
  limited_at_ns_ = now;
  for (size_t i = 0; i < limited_.size(); ++i) {
    LoadConnection& c = *limited_[i];
    if (c.state != LoadConnection::State::joined || c.bytes_per_s == 0) continue;
    c.allowance = std::min(c.allowance + c.bytes_per_s * passed_ms / 1000, c.bytes_per_s);
    while (c.allowance > 0 && c.state == LoadConnection::State::joined) {
      const auto wanted = std::min(static_cast<size_t>(c.allowance), scratch_.size());
      const ssize_t n = receive(c, wanted);
      if (n > 0) {
        c.allowance -= n;
        c.feed(scratch_.data(), static_cast<size_t>(n), *this);
      } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        on_error(c, n == 0 ? "closed by the server without a close frame" : std::strerror(errno));
      } else {
        break;
      }
    }
  }
}

void LoadThread::send_packets(int64_t now) {
  if (!figures_.is_sources) return;
  for (LoadConnection& c : connections_) {
    LoadPacing& pacing = pacing_[c.number];
    while (c.sends() && pacing.due_ns() <= now) {
      if (!c.unsent.empty()) {  // the server has not read the one before
        pacing.skip();
        ++figures_.skipped;
        continue;
      }
      const PacketHeader header = pacing.take();
      const size_t payload = size_t{header.sample_count} * pacing.format().channels *
                             sample_bytes(pacing.format().encoding);
      uint8_t bytes[kHeaderBytes];
      write_packet_header(bytes, header);
      packet_ = ws_client_header(WsOpcode::binary, kHeaderBytes + payload);
      packet_.append(reinterpret_cast<const char*>(bytes), sizeof bytes);
      ++c.record.frames;
      transmit(c, packet_, std::string_view(*parts_[c.number].noise).substr(0, payload));
    }
  }
}

}  // namespace relaycore
