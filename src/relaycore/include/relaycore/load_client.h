// A load client: many listeners and sources of a server in a few threads, cheap enough to share a
// machine with the server, and counting how loaded it is itself. Linux; elsewhere start() says
// unavailable.
//
// Frames are judged by their headers: sequence, timestamp and time_us; payload is counted and
// forgotten. One counts when it has come whole. Delay is the time from its time_us until then. The
// server's clock differs from ours (CLOCK_MONOTONIC) by an offset, which is given, taken from the
// server's answers to `ping` (half a round trip at best is unknown), or from the `serverTime` of its
// `config` messages, the fastest of which is late by the least transit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "relaycore/histogram.h"
#include "relaycore/packet.h"
#include "relaycore/status.h"

namespace relaycore {

// Listeners are counted by group: what is expected of a slow one is not what is of the others.
inline constexpr unsigned kLoadGroups = 4;

enum class LoadClock : uint8_t { given, ping, config };

struct LoadConfig {
  std::string host = "127.0.0.1";  // a numeric address, IPv4 or IPv6
  uint16_t port = 0;
  std::string authority;           // what the Host header says
  std::string path = "/ws";
  std::string join_path = "/auth/room/join";
  std::vector<std::string> bind;   // local addresses to connect from, by turns; empty: any
  unsigned threads = 1;            // for listeners; sources have one more
  unsigned in_flight = 64;         // listeners that are on their way in at a time
  bool registers = true;           // false: an open WebSocket is all that is wanted
  // No WebSocket: a GET is answered by a body that does not end, of the frames that a WebSocket
  // would carry, in its messages. It may begin amid one; what precedes the second of two that follow
  // each other is passed over. Nothing else is said, so that nobody registers, the clock is given,
  // and there are neither sources nor texts.
  bool stream = false;
  bool reuse = false;              // the WebSocket takes the connection of the HTTP request
  bool rejoin = false;             // who is lost comes back, unless it is limited
  int64_t retry_ns = 100'000'000;  // distance of its attempts
  int64_t answer_ns = 30'000'000'000;  // over one connection, until who is on its way in has failed
  LoadClock clock = LoadClock::ping;
  int64_t clock_offset_us = 0;     // `given`: server's clock less CLOCK_MONOTONIC
  // The kernel notes when bytes reach a socket. Of frames that are read together it tells the last
  // one's time.
  bool kernel_times = false;
  bool realtime = false;  // ask for SCHED_FIFO, so that frames are read when they come
  bool tls = false;
  bool verify = true;       // of the server's certificate
  std::string ca_file;      // empty: what the system trusts
  std::string server_name;  // that the certificate must have
};

// Listeners that begin to join. Listener k of these sends registers[k mod size]; before that, if
// there are any, it asks by HTTP for a token with asks[k mod size] as the body, which takes the
// place of $TOKEN in what it registers with.
struct LoadListeners {
  size_t count = 0;
  unsigned group = 0;
  double per_second = 0;     // how many begin, once those added before have; 0: as many as will
  int64_t bytes_per_s = -1;  // what is read at most once they have joined, as in limit()
  std::vector<std::string> registers, asks;
};

// Sources of one format, one for each register text. They send noise on absolute deadlines, a
// packet a frame.
struct LoadSources {
  std::vector<std::string> registers;
  SourceFormat format{};
  unsigned frame_ms = 20;
};

// What became of one connection. Times in µs are of the server's clock, as frames tell them; in ns
// of CLOCK_MONOTONIC.
struct LoadRecord {
  enum State : uint32_t { waiting, entering, joined, dead };

  uint32_t state = waiting;
  uint32_t group = 0;
  uint32_t losses = 0;     // times it was lost
  uint32_t returns = 0;    // times it heard again after that
  uint64_t frames = 0;     // received, each once; of a source: packets sent
  uint64_t expected = 0;   // those and the ones that the sequence passed over
  uint64_t gaps = 0;       // places where it did
  uint64_t repeated = 0;   // frames that came before, as they do on resuming
  uint64_t bytes = 0;      // received, of everything
  int64_t first_us = 0;    // time_us of the first frame
  int64_t last_us = 0;     // and of the last
  int64_t joined_ns = 0;   // when it first was registered; 0: never
  int64_t join_ns = 0;     // how long that took
};

// One thread's figures since they were last restarted, but for those that are as of now.
struct LoadFigures {
  // As of now.
  bool is_sources = false;
  uint64_t connections = 0;  // wanted
  uint64_t settled = 0;      // have joined once, or failed to
  uint64_t joined = 0;       // are
  uint64_t alive = 0;        // have a socket
  bool clock_known = false;
  int64_t clock_offset_us = 0;
  int64_t round_trip_us = 0;  // the shortest of its pings; 0: none was answered
  // Since then.
  int64_t since_ns = 0, taken_ns = 0;  // CLOCK_MONOTONIC
  int64_t cpu_ns = 0;
  int64_t wait_ns = 0;  // wanted a processor and had none
  uint64_t frames = 0, bytes = 0, reads = 0, pings = 0, failed = 0, lost = 0, returned = 0;
  uint64_t gaps = 0, missing = 0;  // places where sequences passed over frames, and how many
  uint64_t attempts = 0;           // to come back
  uint64_t sent = 0, replies = 0;  // texts sent by command, and answers to them
  uint64_t skipped = 0;           // packets that a source could not send in time
  int64_t first_lost_ns = 0, first_open_ns = 0, last_joined_ns = 0, last_back_ns = 0;  // 0: none
  std::array<Histogram, kLoadGroups> delay;  // but of frames from before a listener came back
  Histogram arrival;                         // the same to their reaching the socket
  Histogram join, silence, reply;  // silence: what a listener missed that was lost and came back
  Histogram batch;                 // from waking up to having handled all that was ready
  std::map<std::string, uint64_t> errors;
};

// Any thread may call any method but the destructor. Each waits until the client's threads have
// done it, which is between two batches of events, and throws std::bad_alloc.
class LoadClient {
 public:
  // On invalid_argument and system_error `why` is told.
  static Status start(const LoadConfig& config, std::unique_ptr<LoadClient>& client,
                      std::string& why) noexcept;
  ~LoadClient();  // closes all connections
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  void add_listeners(LoadListeners listeners);
  void add_sources(LoadSources sources);
  // The sources say goodbye, send no more and do not come back.
  void stop_sources();

  // Of listeners by number, in the order in which they were added; unknown ones are passed over.
  // Reading `bytes_per_s` at most: 0 stalls, below 0 is no limit.
  void limit(const std::vector<uint32_t>& listeners, int64_t bytes_per_s);
  void drop(const std::vector<uint32_t>& listeners);
  // Listener i of these sends texts[i mod size] if it is registered. Answers to `subscribe` and
  // `setMix` are counted.
  void send(const std::vector<uint32_t>& listeners, const std::vector<std::string>& texts);
  // Whether those that are lost come back, from now on and of those that are.
  void rejoin(bool on);
  // Frames of this time and later are not counted.
  void count_until(int64_t server_us);

  // A figure for each thread; `restart` begins their next interval at the same instant.
  std::vector<LoadFigures> figures(bool restart);
  std::vector<LoadRecord> listeners();
  std::vector<LoadRecord> sources();

 private:
  struct Impl;
  explicit LoadClient(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relaycore
