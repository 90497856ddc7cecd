// One thread of a load client: its connections and the loop that serves them. The only one that
// calls epoll for them.
#pragma once

#include <netinet/in.h>

#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "clocks.h"
#include "load_connection.h"
#include "load_source.h"
#include "relaycore/load_client.h"

namespace relaycore {

// An address as bind() and connect() take it.
struct LoadAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

// What all threads of a client share; nothing of it changes.
struct LoadTarget {
  LoadConfig config;
  LoadAddress address;
  std::vector<LoadAddress> bind;
  std::unique_ptr<TlsClient> tls;
  std::string request;  // that a listener or a source begins with
};

class LoadThread final : LoadObserver {
 public:
  // Every `stride`-th listener belongs to this thread, from number `index` on.
  LoadThread(const LoadTarget& target, unsigned index, unsigned stride);
  ~LoadThread();
  LoadThread(const LoadThread&) = delete;
  LoadThread& operator=(const LoadThread&) = delete;

  // False with errno when the system refuses a descriptor.
  bool open() noexcept;
  void start();

  // Runs `task` on the thread, between two batches, and returns when it is done; what it throws is
  // thrown here. From any other thread. The methods below are for such tasks.
  void call(const std::function<void()>& task);

  void add_listeners(std::shared_ptr<const LoadListeners> listeners, size_t first);
  void add_sources(std::shared_ptr<const LoadSources> sources);
  void stop_sources();
  void limit(size_t local, int64_t bytes_per_s);
  void drop(size_t local);
  void send_text(size_t local, std::string_view text);
  void rejoin(bool on);
  void count_until(int64_t server_us) noexcept { until_us_ = server_us; }
  LoadFigures figures(bool restart);
  const std::deque<LoadConnection>& connections() const noexcept { return connections_; }

 private:
  // A connection that is to be tried again, and when.
  struct Retry {
    int64_t at_ns;
    LoadConnection* connection;
  };
  // Listeners that are still to begin.
  struct Plan {
    std::shared_ptr<const LoadListeners> listeners;
    size_t next;       // number of the next one, of these
    int64_t begun_ns;  // when it became the first of the plans; 0: it did not yet
  };
  // Which of its texts a connection uses.
  struct Part {
    std::shared_ptr<const LoadListeners> listeners;
    std::shared_ptr<const LoadSources> sources;
    size_t number;
    std::shared_ptr<const std::string> noise;  // what a source sends
  };
  struct Call {
    const std::function<void()>* task;
    std::exception_ptr error;
    bool done = false;
  };

  void run() noexcept;
  void run_calls();
  int64_t next_deadline(int64_t now) const noexcept;
  // When the next one of a plan may begin; behind its last one, the next plan.
  static int64_t due_ns(const Plan& plan) noexcept;
  void start_connections();
  void connect_one(LoadConnection& c);
  void serve(LoadConnection& c, uint32_t events);
  void read_from(LoadConnection& c, bool to_the_end);
  void connect_on(LoadConnection& c, uint32_t events);
  void request(LoadConnection& c);
  void watch(LoadConnection& c);
  ssize_t receive(LoadConnection& c, size_t n);
  void transmit(LoadConnection& c, std::string_view bytes, std::string_view more = {});
  void flush(LoadConnection& c);
  void serve_limited(int64_t now);
  void send_packets(int64_t now);
  void give_up(int64_t now);
  void ask_clock(int64_t now);
  void take_clock(std::string_view pong);

  void on_answer(LoadConnection& c, std::string_view body) override;
  void on_open(LoadConnection& c) override;
  void on_text(LoadConnection& c, std::string_view text) override;
  void on_frame(LoadConnection& c, const PacketHeader& header) override;
  void on_control(LoadConnection& c, WsOpcode opcode, std::string_view payload) override;
  void on_error(LoadConnection& c, std::string_view what) override;
  void on_joined(LoadConnection& c);
  void came_back(LoadConnection& c);
  void lose(LoadConnection& c);
  void note_error(std::string_view what);

  const LoadTarget& target_;
  const unsigned index_, stride_;
  int epoll_ = -1, wake_ = -1;
  std::thread thread_;

  std::mutex mutex_;  // over `calls_`, and `done` of what they point to
  std::condition_variable called_;
  std::vector<Call*> calls_;

  // What follows is the thread's own.
  bool quit_ = false;
  std::deque<LoadConnection> connections_;  // addresses stay: epoll holds them
  std::vector<Part> parts_;                 // one for each connection
  std::deque<Plan> plans_;
  std::deque<Retry> retries_;  // those that are away, by time
  std::vector<LoadConnection*> limited_;
  std::vector<LoadPacing> pacing_;  // one for each source
  size_t entering_ = 0;             // on their way in, for the first time or again
  size_t in_flight_limit_;
  bool rejoin_;
  int64_t until_us_ = INT64_MAX;
  int64_t limited_at_ns_ = 0;  // when limited ones were last read from
  int64_t gave_up_at_ns_ = 0;  // when those that wait in vain were last looked for

  bool clock_known_ = false;
  int64_t clock_offset_us_ = 0;
  int64_t ask_clock_at_ns_ = 0;
  unsigned clock_asked_ = 0;
  struct RoundTrip {
    int64_t us, offset_us;
  };
  std::deque<RoundTrip> round_trips_;

  LoadFigures figures_;
  int64_t cpu_base_ns_ = 0, wait_base_ns_ = 0;
  int64_t now_ns_ = 0;          // when the bytes at hand were received
  int64_t arrived_ns_ = 0;      // when the last of them reached the socket
  int64_t unix_offset_ns_ = 0;  // CLOCK_REALTIME, in which the kernel tells it, less CLOCK_MONOTONIC
  std::vector<uint8_t> scratch_;
  std::string out_, packet_;  // being sent
};

}  // namespace relaycore
