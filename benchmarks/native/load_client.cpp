// WebSocket load client: many listeners in one process and one thread, cheap enough to share a
// machine with the server, and saying how loaded it is itself. Loopback only, bounded in time.
//
//   load_client --port 8080 [--host 127.0.0.1] [--path /ws] [--register FILE] [--in-flight 64]
//               [--server-pid PID,...] [--clock-offset-us N] [--kernel-times 0] [--realtime 0]
//               [--max-seconds 120]
//
// Built with BENCH_TLS it speaks TLS (stream.h), and all else is the same.
//
// FILE holds register texts, one a line; connection i sends line i mod lines. Without it the server
// registers by itself. Commands on standard input, one a line; each is answered by one JSON line:
//
//   join N       grow to N connections; {"event":"joined",...} when all are registered or failed
//   flow K       {"event":"flowing"} when every connection has had K more frames
//   measure MS   {"event":"measured",...} after that time, counted from now
//   quit         (or end of input) ends the process
//
// Delay is the time from a frame's time_us to its receipt. The server's clock is Unix time at its
// start plus a monotonic clock, so it differs from ours by a constant: given by --clock-offset-us
// (server clock less CLOCK_MONOTONIC), or taken from the `serverTime` of the `config` messages, the
// fastest of which is late by the least transit (tens of microseconds, which the delay then lacks).
//
// With --kernel-times 1 the kernel notes when bytes reach a socket, and "arrival" is the time from
// time_us to that moment: reading them late makes it no later. But of frames that are read together
// the kernel tells the last one's time; --realtime 1 asks for SCHED_FIFO, so that few are.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

#include <deque>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <vector>

#include "bench.h"
#include "connection.h"
#include "histogram.h"

namespace {

using namespace bench;

// A client's frames are masked; the key may be any.
std::string masked(unsigned opcode, std::string_view payload) {
  static constexpr uint8_t kMask[4] = {0x37, 0xFA, 0x21, 0x3D};
  std::string out;
  out += static_cast<char>(0x80 | opcode);
  if (payload.size() < 126) {
    out += static_cast<char>(0x80 | payload.size());
  } else {
    out += static_cast<char>(0x80 | 126);
    out += static_cast<char>(payload.size() >> 8);
    out += static_cast<char>(payload.size() & 255);
  }
  out.append(reinterpret_cast<const char*>(kMask), 4);
  for (size_t i = 0; i < payload.size(); ++i)
    out += static_cast<char>(static_cast<uint8_t>(payload[i]) ^ kMask[i & 3]);
  return out;
}

class LoadClient final : Observer {
 public:
  explicit LoadClient(const Arguments& arguments)
      : address_(loopback(arguments.text("--host", "127.0.0.1"),
                          static_cast<unsigned>(arguments.number("--port", 0)))),
        kernel_times_(arguments.number("--kernel-times", 0) != 0),
        in_flight_limit_(static_cast<size_t>(arguments.number("--in-flight", 64))),
        end_ns_(monotonic_ns() + arguments.number("--max-seconds", 120) * 1'000'000'000),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    request_ = std::string("GET ") + arguments.text("--path", "/ws") +
               " HTTP/1.1\r\nHost: " + arguments.text("--host", "127.0.0.1") + ":" +
               std::to_string(ntohs(address_.sin_port)) +
               "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " +
               std::string(kKey) + "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    if (const char* path = arguments.text("--register", nullptr)) {
      std::ifstream file(path);
      for (std::string line; std::getline(file, line);)
        if (!line.empty()) registers_.push_back(masked(1, line));
      if (registers_.empty()) die("no register text");
    }
    if (Stream::kTls && kernel_times_) die("TLS: the kernel's times are not to be had");
    std::istringstream pids(arguments.text("--server-pid", ""));
    for (std::string pid; std::getline(pids, pid, ',');)
      server_cpus_.push_back(cpu_clock_of(static_cast<pid_t>(std::atoi(pid.c_str()))));
    if (arguments.text("--clock-offset-us", nullptr) != nullptr)
      clock_offset_us_ = arguments.number("--clock-offset-us", 0);
    offset_is_given_ = clock_offset_us_.has_value();
    epoll_event event{EPOLLIN, {.ptr = nullptr}};  // null: standard input
    if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0) die("epoll");
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
  }
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  void run() {
    epoll_event events[512];
    while (!quit_) {
      const int64_t now = monotonic_ns();
      if (now >= end_ns_) break;
      if (measuring_ && now >= interval_end_ns_) finish_measure();
      answer_if_reached();
      int64_t wait = end_ns_ - now;
      if (measuring_) wait = std::min(wait, interval_end_ns_ - now);
      const int n = epoll_wait(epoll_, events, 512, static_cast<int>(wait / 1'000'000 + 1));
      if (n < 0 && errno != EINTR) die("epoll_wait");
      const int64_t woke = monotonic_ns();
      if (kernel_times_) unix_offset_ns_ = clock_ns(CLOCK_REALTIME) - woke;
      for (int i = 0; i < n; ++i) {
        if (events[i].data.ptr == nullptr)
          read_commands();
        else
          serve(*static_cast<Connection*>(events[i].data.ptr), events[i].events);
      }
      if (n > 0) longest_batch_ns_ = std::max(longest_batch_ns_, monotonic_ns() - woke);
      start_connections();
    }
  }

 private:
  // ---- commands ----

  void read_commands() {
    char buffer[512];
    const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) quit_ = true;
    if (n <= 0) return;
    input_.append(buffer, static_cast<size_t>(n));
    for (size_t end; (end = input_.find('\n')) != std::string::npos; input_.erase(0, end + 1))
      command(input_.substr(0, end));
  }

  void command(const std::string& line) {
    char verb[16] = "";
    unsigned long long value = 0;
    std::sscanf(line.c_str(), "%15s %llu", verb, &value);
    const std::string_view name = verb;
    if (name == "join") {
      joining_ = true;
      join_target_ = std::max<size_t>(value, connections_.size());
    } else if (name == "flow") {
      flow_target_ = static_cast<uint32_t>(value);
      for (Connection& c : connections_) c.frames = 0;
    } else if (name == "measure") {
      start_measure(static_cast<int64_t>(value));
    } else if (name == "quit") {
      quit_ = true;
    } else {
      errno = 0;
      die("unknown command");
    }
  }

  void answer_if_reached() {
    if (joining_ && settled_ == join_target_) {
      joining_ = false;
      say(R"({"event":"joined","connections":%zu,"failed":%zu,"join_ms":%s,"errors":%s})", alive_,
          settled_ - joined_, join_.json().c_str(), errors_json().c_str());
      join_.clear();
    }
    if (flow_target_ > 0) {
      for (const Connection& c : connections_)
        if (c.alive() && c.frames < flow_target_) return;
      flow_target_ = 0;
      say(R"({"event":"flowing","connections":%zu})", alive_);
    }
  }

  // ---- connections ----

  void start_connections() {
    while (joining_ && connections_.size() < join_target_ &&
           connections_.size() - settled_ < in_flight_limit_)
      connect_one();
  }

  void connect_one() {
    Connection& c = connections_.emplace_back();
    c.started_ns = monotonic_ns();
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    c.stream.open(fd);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (kernel_times_ && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0)
      die("SO_TIMESTAMPNS");
    ++alive_;
    c.state = Connection::State::connecting;
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof address_) != 0 &&
        errno != EINPROGRESS)
      return on_error(c, std::strerror(errno));
    // The request goes with the first EPOLLOUT; reading is edge-triggered from then on.
    epoll_event event{EPOLLOUT | EPOLLONESHOT, {.ptr = &c}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
  }

  void serve(Connection& c, uint32_t events) {
    if (!c.alive()) return;
    if (c.state == Connection::State::connecting) return connect_on(c, events);
    // A short read has emptied a plain socket: no need to be told EAGAIN. TLS comes in records.
    for (ssize_t n = sizeof scratch_; (n == sizeof scratch_ || Stream::kTls) && c.alive();) {
      n = receive(c);
      if (n > 0) {
        bytes_ += static_cast<uint64_t>(n);
        ++reads_;
        c.feed(scratch_, static_cast<size_t>(n), *this);
        if ((events & EPOLLRDHUP) && c.alive()) n = sizeof scratch_;  // read on to the end
      } else if (n == 0) {
        on_error(c, "closed by the server without a close frame");
      } else {
        if (errno != EAGAIN && errno != EINTR) on_error(c, std::strerror(errno));
        break;
      }
    }
  }

  // The socket is connected, or the TLS handshake has gone a step further.
  void connect_on(Connection& c, uint32_t events) {
    if (events & EPOLLOUT) {
      epoll_event event{EPOLLIN | EPOLLRDHUP | EPOLLET, {.ptr = &c}};
      if (epoll_ctl(epoll_, EPOLL_CTL_MOD, c.stream.fd(), &event) != 0) die("epoll_ctl");
    }
    if (const int done = c.stream.handshake(); done == 1) {
      c.state = Connection::State::handshake;
      transmit(c, request_);
    } else if (done == 0 || errno != EAGAIN) {
      on_error(c, done == 0 ? "closed in the TLS handshake" : std::strerror(errno));
    }
  }

  // recv() into scratch_; with now_ns_, and when the last of the bytes had come.
  ssize_t receive(Connection& c) {
    if (!kernel_times_) {
      const ssize_t n = c.stream.recv(scratch_, sizeof scratch_);
      now_ns_ = monotonic_ns();
      return n;
    }
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timespec))];
    iovec bytes{scratch_, sizeof scratch_};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(c.stream.fd(), &message, 0);
    const int error = errno;  // clock_gettime may change it
    arrived_ns_ = now_ns_ = monotonic_ns();
    errno = error;
    if (n <= 0) return n;
    // The first packets after the option was set may come without: they count as read.
    const cmsghdr* item = CMSG_FIRSTHDR(&message);
    if (item && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_TIMESTAMPNS) {
      timespec at{};
      std::memcpy(&at, CMSG_DATA(item), sizeof at);
      arrived_ns_ = at.tv_sec * 1'000'000'000LL + at.tv_nsec - unix_offset_ns_;
    }
    return n;
  }

  // What a client says is short: a socket that does not take it at once is broken.
  void transmit(Connection& c, std::string_view bytes) {
    if (c.stream.send(bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      return on_error(c, "could not send");
    // A socket that answers is taken for interactive: it then acknowledges every second frame, from
    // the softirq that delivers it, which on loopback the sender pays for. Subjects that ping would
    // pay what those that don't leave to us. This ends that mode: whoever reads, acknowledges.
    const int on = 1;
    setsockopt(c.stream.fd(), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
  }

  void on_open(Connection& c) override {
    if (!registers_.empty())
      transmit(c, registers_[static_cast<size_t>(opened_++) % registers_.size()]);
  }

  void on_text(Connection& c, std::string_view text) override {
    if (text.find(R"("listenerRegistered")") != text.npos && c.state == Connection::State::open) {
      c.state = Connection::State::joined;
      ++settled_;
      ++joined_;
      join_.add((now_ns_ - c.started_ns) / 1000);
    } else if (text.find(R"("config")") != text.npos && !offset_is_given_) {
      const size_t at = text.find(R"("serverTime":)");
      if (at == text.npos) return;
      const int64_t server = std::atoll(text.data() + at + 13);
      clock_offset_us_ = std::max(clock_offset_us_.value_or(INT64_MIN), server - now_ns_ / 1000);
    } else if (text.find(R"("error")") != text.npos) {
      ++errors_[std::string(text.substr(0, 200))];
    }
  }

  void on_frame(Connection& c, uint32_t sequence, uint64_t time_us) override {
    if (c.has_sequence && sequence != c.last_sequence + 1) {
      ++gaps_;
      missing_ += sequence - c.last_sequence - 1;
    }
    c.has_sequence = true;
    c.last_sequence = sequence;
    ++c.frames;
    if (measuring_ && clock_offset_us_) {
      const int64_t since_ns = *clock_offset_us_ * 1000 - static_cast<int64_t>(time_us) * 1000;
      delay_.add((now_ns_ + since_ns) / 1000);
      if (kernel_times_) arrival_.add((arrived_ns_ + since_ns) / 1000);
    }
  }

  void on_control(Connection& c, unsigned opcode, const uint8_t* payload, size_t n) override {
    const std::string_view text(reinterpret_cast<const char*>(payload), n);
    if (opcode == 9) {
      ++pings_;
      transmit(c, masked(10, text));
    } else if (opcode == 8) {
      const unsigned code = n >= 2 ? payload[0] << 8 | payload[1] : 1005;
      on_error(c, "closed with " + std::to_string(code) + " " +
                      std::string(n > 2 ? text.substr(2) : ""));
    }
  }

  void on_error(Connection& c, std::string_view what) override {
    if (!c.alive()) return;
    if (c.state != Connection::State::joined) ++settled_;
    c.state = Connection::State::dead;
    --alive_;
    ++lost_;
    ++errors_[std::string(what)];
    c.stream.close();
  }

  // ---- measuring ----

  void start_measure(int64_t ms) {
    delay_.clear();
    arrival_.clear();
    for (Connection& c : connections_) c.frames = 0;
    bytes_ = reads_ = gaps_ = missing_ = pings_ = lost_ = 0;
    longest_batch_ns_ = 0;
    measuring_ = true;
    interval_start_ns_ = monotonic_ns();
    interval_end_ns_ = interval_start_ns_ + ms * 1'000'000;
    own_cpu_start_ns_ = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    server_cpu_start_ns_ = server_cpu_ns();
  }

  void finish_measure() {
    const int64_t server_ns = server_cpu_ns() - server_cpu_start_ns_;
    const int64_t own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu_start_ns_;
    const int64_t wall_ns = monotonic_ns() - interval_start_ns_;
    measuring_ = false;
    uint64_t frames = 0;
    uint32_t fewest = UINT32_MAX, most = 0;
    for (const Connection& c : connections_) {
      frames += c.frames;
      if (!c.alive()) continue;
      fewest = std::min(fewest, c.frames);
      most = std::max(most, c.frames);
    }
    say(R"({"event":"measured","connections":%zu,"lost":%llu,"seconds":%.6f,"frames":%llu,)"
        R"("frames_fewest":%u,"frames_most":%u,"gaps":%llu,"missing":%llu,"bytes":%llu,)"
        R"("reads":%llu,"pings":%llu,"server_cpu_s":%.6f,"client_cpu_s":%.6f,)"
        R"("client_longest_batch_ms":%.3f,"delay_ms":%s,"arrival_ms":%s,"arrival_us":%s,"errors":%s})",
        alive_, ull(lost_), static_cast<double>(wall_ns) / 1e9, ull(frames), alive_ ? fewest : 0,
        most, ull(gaps_), ull(missing_), ull(bytes_), ull(reads_), ull(pings_),
        static_cast<double>(server_ns) / 1e9, static_cast<double>(own_ns) / 1e9,
        static_cast<double>(longest_batch_ns_) / 1e6, delay_.json().c_str(),
        arrival_.json().c_str(), arrival_.ranges_json().c_str(), errors_json().c_str());
  }

  int64_t server_cpu_ns() const {
    int64_t sum = 0;
    for (const clockid_t clock : server_cpus_) sum += clock_ns(clock);
    return sum;
  }

  static unsigned long long ull(uint64_t value) { return value; }

  std::string errors_json() const {
    std::string out = "{";
    for (const auto& [text, count] : errors_) {
      if (out.size() > 1) out += ',';
      out += '"';
      for (const char ch : text) {
        if (ch == '"' || ch == '\\') out += '\\';
        out += static_cast<unsigned char>(ch) < 0x20 ? ' ' : ch;
      }
      out += "\":" + std::to_string(count);
    }
    return out + "}";
  }

  const sockaddr_in address_;
  const bool kernel_times_;
  const size_t in_flight_limit_;
  const int64_t end_ns_;
  const int epoll_;
  std::string request_;
  std::vector<std::string> registers_;  // masked and ready to be sent
  std::vector<clockid_t> server_cpus_;  // of all the processes that are the server
  std::optional<int64_t> clock_offset_us_;  // server clock less CLOCK_MONOTONIC
  bool offset_is_given_ = false;

  std::deque<Connection> connections_;  // addresses stay: epoll holds them
  size_t alive_ = 0, settled_ = 0, joined_ = 0, opened_ = 0, join_target_ = 0;
  bool joining_ = false, measuring_ = false, quit_ = false;
  uint32_t flow_target_ = 0;
  std::string input_;
  std::map<std::string, uint64_t> errors_;
  Histogram join_, delay_, arrival_;

  int64_t now_ns_ = 0;          // when the bytes at hand were received
  int64_t arrived_ns_ = 0;      // when the last of them reached the socket
  int64_t unix_offset_ns_ = 0;  // CLOCK_REALTIME, in which the kernel tells it, less CLOCK_MONOTONIC
  int64_t interval_start_ns_ = 0, interval_end_ns_ = 0;
  int64_t own_cpu_start_ns_ = 0, server_cpu_start_ns_ = 0, longest_batch_ns_ = 0;
  uint64_t bytes_ = 0, reads_ = 0, gaps_ = 0, missing_ = 0, pings_ = 0, lost_ = 0;
  uint8_t scratch_[256 * 1024];
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  raise_descriptor_limit();
  Stream::configure(arguments, false);
  if (arguments.number("--realtime", 0) != 0) {
    sched_param priority{};
    priority.sched_priority = 5;  // below a relay's
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);  // refused: as any other process
  }
  static LoadClient client(arguments);  // static: too large for the stack
  client.run();
  return 0;
}
