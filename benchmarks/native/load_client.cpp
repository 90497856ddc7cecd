// WebSocket load client: many listeners in one process and one thread, cheap enough to share a
// machine with the server, and saying how loaded it is itself. Loopback only, bounded in time.
//
//   load_client --port 8080 [--host 127.0.0.1] [--path /ws] [--register FILE] [--in-flight 64]
//               [--per-second 0] [--ask FILE] [--reuse 0] [--bare 0] [--server-pid PID,...]
//               [--clock-offset-us N] [--kernel-times 0] [--realtime 0] [--max-seconds 120]
//
// Built with BENCH_TLS it speaks TLS (stream.h), and all else is the same.
//
// FILE holds register texts, one a line; connection i sends line i mod lines. Without it the server
// registers by itself, or, with --bare 1, an open WebSocket is all that is wanted. With --ask each
// listener first sends an HTTP request of its own, POST /auth/room/join with a line of that file as
// its body, and puts the `roomToken` of the answer in the place of $TOKEN in its register text; the
// WebSocket is another connection, as in a browser, or with --reuse 1 the same one. At most
// --in-flight are on their way in at a time, and --per-second begin (0: as many as will).
//
// Commands on standard input, one a line; each is answered by one JSON line:
//
//   join N       grow to N connections; {"event":"joined",...} when all are registered or failed
//   flow K       {"event":"flowing"} when every connection has had K more frames
//   measure MS   {"event":"measured",...} after that time, counted from now
//   rejoin       from now on whoever is lost comes back with its token and `from`, trying again
//                every 100 ms; {"event":"rejoined",...} when everyone was lost and hears again
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

constexpr int64_t kRetryNs = 100'000'000;

// A connection that is to be tried again, and when.
struct Retry {
  int64_t at_ns;
  Connection* connection;
};

class LoadClient final : Observer {
 public:
  explicit LoadClient(const Arguments& arguments)
      : address_(loopback(arguments.text("--host", "127.0.0.1"),
                          static_cast<unsigned>(arguments.number("--port", 0)))),
        kernel_times_(arguments.number("--kernel-times", 0) != 0),
        is_bare_(arguments.number("--bare", 0) != 0),
        reuse_(arguments.number("--reuse", 0) != 0),
        in_flight_limit_(static_cast<size_t>(arguments.number("--in-flight", 64))),
        per_second_(arguments.number("--per-second", 0)),
        end_ns_(monotonic_ns() + arguments.number("--max-seconds", 120) * 1'000'000'000),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    request_ = std::string("GET ") + arguments.text("--path", "/ws") +
               " HTTP/1.1\r\nHost: " + arguments.text("--host", "127.0.0.1") + ":" +
               std::to_string(ntohs(address_.sin_port)) +
               "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " +
               std::string(kKey) + "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    registers_ = lines_of(arguments.text("--register", nullptr));
    for (const std::string& body : lines_of(arguments.text("--ask", nullptr)))
      asks_.push_back("POST /auth/room/join HTTP/1.1\r\nHost: " +
                      std::string(arguments.text("--host", "127.0.0.1")) + ":" +
                      std::to_string(ntohs(address_.sin_port)) +
                      "\r\nContent-Type: application/json\r\nContent-Length: " +
                      std::to_string(body.size()) + "\r\n\r\n" + body);
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
      if (!retries_.empty()) wait = std::min(wait, retries_.front().at_ns - now);
      if (joining_ && per_second_ > 0) wait = std::min<int64_t>(wait, 1'000'000);
      wait = std::max<int64_t>(wait, 0);
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
  static std::vector<std::string> lines_of(const char* path) {
    std::vector<std::string> lines;
    if (path == nullptr) return lines;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) lines.push_back(line);
    if (lines.empty()) die("an empty file");
    return lines;
  }

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
      begin_interval();
    } else if (name == "flow") {
      flow_target_ = static_cast<uint32_t>(value);
      for (Connection& c : connections_) c.frames = 0;
    } else if (name == "measure") {
      start_measure(static_cast<int64_t>(value));
    } else if (name == "rejoin") {
      rejoining_ = true;
      errors_.clear();
      silence_.clear();
      first_lost_ns_ = first_open_ns_ = last_joined_ns_ = 0;
      back_ = attempts_ = 0;
      for (Connection& c : connections_) {
        c.is_back = false;
        if (c.alive()) continue;
        c.is_lost = true;
        first_lost_ns_ = monotonic_ns();
        retries_.push_back({0, &c});
      }
      begin_interval();
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
      say(R"({"event":"joined","connections":%zu,"failed":%zu,%s,"join_ms":%s,"errors":%s})", alive_,
          settled_ - joined_, interval_json().c_str(), join_.json().c_str(), errors_json().c_str());
      join_.clear();
    }
    if (rejoining_ && back_ == connections_.size()) {
      rejoining_ = false;
      const auto since_lost = [this](int64_t ns) {
        return static_cast<double>(ns - first_lost_ns_) / 1e9;
      };
      say(R"({"event":"rejoined","connections":%zu,"attempts":%llu,"open_s":%.6f,"joined_s":%.6f,)"
          R"("heard_s":%.6f,"silence_ms":%s,%s,"errors":%s})",
          alive_, ull(attempts_), since_lost(first_open_ns_), since_lost(last_joined_ns_),
          since_lost(now_ns_), silence_.json().c_str(), interval_json().c_str(),
          errors_json().c_str());
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
           connections_.size() - settled_ < in_flight_limit_ && is_due()) {
      Connection& c = connections_.emplace_back();
      ++begun_;
      c.started_ns = monotonic_ns();
      c.asks = !asks_.empty();
      connect_one(c);
    }
    const int64_t now = monotonic_ns();
    while (!retries_.empty() && retries_.front().at_ns <= now && coming_back_ < in_flight_limit_) {
      Connection& c = *retries_.front().connection;
      retries_.pop_front();
      ++coming_back_;
      ++attempts_;
      connect_one(c);
    }
  }

  bool is_due() const {
    if (per_second_ <= 0) return true;
    const int64_t passed_ns = monotonic_ns() - interval_start_ns_;
    return static_cast<int64_t>(begun_) * 1'000'000'000 <= passed_ns * per_second_;
  }

  void connect_one(Connection& c) {
    c.restart();
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    c.stream.open(fd);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (kernel_times_ && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0)
      die("SO_TIMESTAMPNS");
    ++alive_;
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
        if (c.state == Connection::State::connecting) return;  // it has another socket now
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
      if (c.asks) {
        c.state = Connection::State::asking;
        transmit(c, asks_[static_cast<size_t>(asked_++) % asks_.size()]);
      } else {
        ask_upgrade(c);
      }
    } else if (done == 0 || errno != EAGAIN) {
      on_error(c, done == 0 ? "closed in the TLS handshake" : std::strerror(errno));
    }
  }

  void ask_upgrade(Connection& c) {
    c.state = Connection::State::handshake;
    transmit(c, request_);
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

  void on_answer(Connection& c, std::string_view body) override {
    static constexpr std::string_view kToken = R"("roomToken":")";
    const size_t at = body.find(kToken);
    if (at == body.npos) return on_error(c, "an answer without a roomToken");
    const std::string_view rest = body.substr(at + kToken.size());
    c.token = rest.substr(0, rest.find('"'));
    c.asks = false;
    if (reuse_) return ask_upgrade(c);
    c.stream.close();
    --alive_;
    connect_one(c);
  }

  void on_open(Connection& c) override {
    if (rejoining_ && first_open_ns_ == 0) first_open_ns_ = now_ns_;
    if (is_bare_) return on_joined(c);
    if (registers_.empty()) return;
    std::string text = registers_[static_cast<size_t>(opened_++) % registers_.size()];
    if (const size_t at = text.find("$TOKEN"); at != text.npos) text.replace(at, 6, c.token);
    if (c.is_lost && c.last_timestamp > 0)
      text.insert(1, R"("from":)" + std::to_string(c.last_timestamp) + ",");
    transmit(c, masked(1, text));
  }

  void on_joined(Connection& c) {
    c.state = Connection::State::joined;
    last_joined_ns_ = now_ns_;
    if (c.is_lost) {
      --coming_back_;
      return;
    }
    ++settled_;
    ++joined_;
    join_.add((now_ns_ - c.started_ns) / 1000);
  }

  void on_text(Connection& c, std::string_view text) override {
    if (text.find(R"("listenerRegistered")") != text.npos && c.state == Connection::State::open) {
      on_joined(c);
    } else if (text.find(R"("config")") != text.npos && !offset_is_given_) {
      const size_t at = text.find(R"("serverTime":)");
      if (at == text.npos) return;
      const int64_t server = std::atoll(text.data() + at + 13);
      clock_offset_us_ = std::max(clock_offset_us_.value_or(INT64_MIN), server - now_ns_ / 1000);
    } else if (text.find(R"("error")") != text.npos) {
      ++errors_[std::string(text.substr(0, 200))];
    }
  }

  void on_frame(Connection& c, uint32_t sequence, uint64_t timestamp, uint64_t time_us) override {
    if (c.is_lost && c.state == Connection::State::joined) {
      c.is_lost = false;
      c.is_back = true;
      ++back_;
      silence_.add((now_ns_ - c.heard_ns) / 1000);
    }
    c.last_timestamp = timestamp;
    c.heard_ns = now_ns_;
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
    if (c.is_lost) {
      if (c.state != Connection::State::joined) --coming_back_;
    } else if (c.state != Connection::State::joined) {
      ++settled_;
    }
    c.state = Connection::State::dead;
    --alive_;
    ++lost_;
    ++errors_[std::string(what)];
    c.stream.close();
    if (!rejoining_) return;
    now_ns_ = monotonic_ns();
    if (first_lost_ns_ == 0) first_lost_ns_ = now_ns_;
    if (c.is_back) {  // lost again, when others are still away
      c.is_back = false;
      --back_;
    }
    c.is_lost = true;
    retries_.push_back({now_ns_ + kRetryNs, &c});
  }

  // ---- measuring ----

  void begin_interval() {
    longest_batch_ns_ = 0;
    begun_ = 0;
    interval_start_ns_ = monotonic_ns();
    own_cpu_start_ns_ = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    server_cpu_start_ns_ = server_cpu_ns();
  }

  // From its beginning until now.
  std::string interval_json() const {
    const auto seconds = [](int64_t ns) { return static_cast<double>(ns) / 1e9; };
    char text[192];
    std::snprintf(text, sizeof text,
                  R"("seconds":%.6f,"server_cpu_s":%.6f,"client_cpu_s":%.6f,)"
                  R"("client_longest_batch_ms":%.3f)",
                  seconds(monotonic_ns() - interval_start_ns_),
                  seconds(server_cpu_ns() - server_cpu_start_ns_),
                  seconds(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu_start_ns_),
                  seconds(longest_batch_ns_) * 1e3);
    return text;
  }

  void start_measure(int64_t ms) {
    delay_.clear();
    arrival_.clear();
    for (Connection& c : connections_) c.frames = 0;
    bytes_ = reads_ = gaps_ = missing_ = pings_ = lost_ = 0;
    measuring_ = true;
    begin_interval();
    interval_end_ns_ = interval_start_ns_ + ms * 1'000'000;
  }

  void finish_measure() {
    const std::string interval = interval_json();
    measuring_ = false;
    uint64_t frames = 0;
    uint32_t fewest = UINT32_MAX, most = 0;
    for (const Connection& c : connections_) {
      frames += c.frames;
      if (!c.alive()) continue;
      fewest = std::min(fewest, c.frames);
      most = std::max(most, c.frames);
    }
    say(R"({"event":"measured","connections":%zu,"lost":%llu,%s,"frames":%llu,)"
        R"("frames_fewest":%u,"frames_most":%u,"gaps":%llu,"missing":%llu,"bytes":%llu,)"
        R"("reads":%llu,"pings":%llu,"delay_ms":%s,"arrival_ms":%s,"arrival_us":%s,"errors":%s})",
        alive_, ull(lost_), interval.c_str(), ull(frames), alive_ ? fewest : 0, most, ull(gaps_),
        ull(missing_), ull(bytes_), ull(reads_), ull(pings_), delay_.json().c_str(),
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
  const bool is_bare_;
  const bool reuse_;
  const size_t in_flight_limit_;
  const int64_t per_second_;
  const int64_t end_ns_;
  const int epoll_;
  std::string request_;
  std::vector<std::string> registers_;
  std::vector<std::string> asks_;  // HTTP requests, whole
  std::vector<clockid_t> server_cpus_;  // of all the processes that are the server
  std::optional<int64_t> clock_offset_us_;  // server clock less CLOCK_MONOTONIC
  bool offset_is_given_ = false;

  std::deque<Connection> connections_;  // addresses stay: epoll holds them
  size_t alive_ = 0, settled_ = 0, joined_ = 0, opened_ = 0, asked_ = 0, join_target_ = 0;
  size_t begun_ = 0;  // joins since the interval began
  bool joining_ = false, rejoining_ = false, measuring_ = false, quit_ = false;
  std::deque<Retry> retries_;  // those that are away, by time
  size_t coming_back_ = 0;     // of those that were lost: on their way in
  size_t back_ = 0;            // hear again
  uint64_t attempts_ = 0;
  int64_t first_lost_ns_ = 0, first_open_ns_ = 0, last_joined_ns_ = 0;
  uint32_t flow_target_ = 0;
  std::string input_;
  std::map<std::string, uint64_t> errors_;
  Histogram join_, delay_, arrival_, silence_;

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
