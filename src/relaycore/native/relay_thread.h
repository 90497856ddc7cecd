// A relay thread: its connections, the rooms that are at home here, the views of those that are
// listened to here, and the loop that serves them all.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "clocks.h"
#include "relaycore/connection.h"
#include "relaycore/counters.h"
#include "relaycore/relay.h"
#include "relaycore/task.h"
#include "relay_room.h"
#include "scheduling.h"

namespace relaycore {

// What all threads of a relay share.
struct RelayShared {
  RelayConfig config;
  int64_t unix_offset_ns = 0;  // server clock − CLOCK_MONOTONIC; never changes
  std::vector<std::unique_ptr<RelayThread>> threads;

  MpscQueue events;
  int event_fd = -1;
  std::atomic<bool> event_signalled{false};

  int64_t clock_us(int64_t monotonic_ns) const noexcept {
    return (monotonic_ns + unix_offset_ns) / 1000;
  }
  void post_event(QueueNode* event) noexcept;
  void wake_poller() noexcept;  // poll() is called once more, even if nothing new is there
};

// The thread that owns what an id names: ids carry it in their low byte.
constexpr unsigned kMaxThreads = 64;
constexpr unsigned thread_of(uint64_t id) noexcept { return id & 0xff; }

class RelayThread {
 public:
  RelayThread(RelayShared& shared, unsigned index);
  ~RelayThread();

  Status start();  // system_error: errno tells
  void join();

  // Any thread. The task belongs to the queue from here on.
  void post(Task* task) noexcept;
  // When this thread has to come round again (CLOCK_MONOTONIC); INT64_MAX: not before it is woken.
  // relaxed: it orders nothing, and the watchdog looks again.
  int64_t due_ns() const noexcept { return due_ns_.load(std::memory_order_relaxed); }
  template <class F>
  void call(F&& function) {
    post(new FunctionTask<std::decay_t<F>>(std::forward<F>(function)));
  }

  // ---- this thread only, from here on ----

  // Commands (relay_commands.cpp).
  void attach(std::unique_ptr<Connection> connection, Ref<Text> response);
  void bind_listener(uint64_t connection, uint64_t room, Ref<RoomCounters> counters,
                     const Subscription& subscription, Ref<Text> reply, uint16_t known_stream,
                     JoinPoint join);
  void bind_source(uint64_t connection, SourceSession session, Ref<Text> reply);
  void unbind_source(uint64_t connection);
  void subscribe(uint64_t connection, const Subscription& subscription, Ref<Text> reply);
  void send_text(uint64_t connection, Ref<Text> text);
  void send_room(uint64_t room, const Ref<Text>& text);
  void close_connection(uint64_t connection, CloseReason reason, uint16_t code, std::string detail,
                        Ref<Text> text);
  void close_view(uint64_t room, CloseReason reason, uint16_t code, const Ref<Text>& text);
  void report_room(uint64_t room);
  void resume_reading(uint64_t connection);
  void stop(Ref<Text> text, int64_t deadline_ns);

  Connection* find(uint64_t id) noexcept;
  RoomView* find_view(uint64_t room) noexcept;
  Room* find_room(uint64_t room) noexcept;
  void open_room(uint64_t room, Ref<RoomCounters> counters);
  void close_room(uint64_t room, uint16_t code, const Ref<Text>& text);

  void schedule_tick(Room& room, int64_t deadline_ns);
  void schedule_pass(RoomView& view);
  // Its turn to be sent to, to be sent its messages, or to be read from, comes soon.
  void make_ready(Connection& connection) noexcept { ready_.push(connection); }
  void talk_soon(Connection& connection) {
    if (!connection.talks) talkers_.push_back(connection.id());
    connection.talks = true;
  }
  void read_soon(Connection& connection) noexcept { readers_.push(connection); }

  // relay_send.cpp: one sendmsg with all that is due to the connection, or with its messages and no
  // frame but one that belongs to them. False: there was nothing, or it may not be sent now.
  bool send_due(Connection& connection, bool only_messages = false);
  void go_live(Connection& connection) noexcept;
  bool over_lag(Connection& connection) noexcept;
  void report_lag(uint64_t connection, int64_t lag_ns) noexcept;
  void unblock(Connection& connection);
  double lag_ms(const Connection& connection) const noexcept;

  // Queues a message and, with it, a change of delivery.
  void enqueue(Connection& connection, Ref<Text> text, Delivery change = {},
               uint64_t not_before = 0, bool is_close = false);
  // Says goodbye: a close frame behind what is queued. `reason` is what the control plane is told.
  void begin_close(Connection& connection, CloseReason reason, uint16_t code, std::string_view detail,
                   uint64_t not_before = 0);
  // Closes a connection whose peer broke the framing, for the reason in its event (Connection::deaf).
  void tell_fault(Connection& connection);
  // The end: the descriptor is closed, the control plane told when this step of the loop is over.
  void destroy(Connection& connection, bool reset = false);

  RelayThread& home_of(uint64_t room) noexcept { return *shared.threads[thread_of(room)]; }

  RelayShared& shared;
  const unsigned index;
  ThreadCounters counters;
  RenderScratch& scratch() noexcept { return *scratch_; }
  int64_t now_ns = 0;  // as of the last step of the loop

 private:
  friend struct ReceiveHandler;  // relay_receive.cpp
  struct SendPlan;

  void run() noexcept;
  void loop();
  void arm_timer();
  void note_due(int64_t at_ns) noexcept;
  void handle_events(bool busy);
  bool watch(Connection& connection) noexcept;
  void unwatch(Connection& connection) noexcept;
  void run_reads();
  void run_tasks();
  void run_ticks();
  void run_sends();
  void run_talkers(int64_t end_ns);
  void run_ready(int64_t end_ns);
  void run_passes(int64_t end_ns);
  void sweep();
  void check_connection(Connection& connection);
  void check_stalled(Connection& connection);
  void evict(Connection& connection);
  void skip_to(Connection& connection, uint64_t cursor) noexcept;
  void give_up_late(Connection& connection) noexcept;
  void detach_from_room(Connection& connection);
  void finish_stopping();
  void bury();
  void apply(Connection& connection, const Delivery& change);
  void tune_socket(Connection& connection, size_t frame_bytes, unsigned frame_ms);

  // relay_receive.cpp
  void receive(Connection& connection);
  int64_t time_to_read(Connection& connection) noexcept;
  size_t consume(Connection& connection, uint8_t* data, size_t n);
  WsLimits limits_of(const Connection& connection) const noexcept;
  uint32_t prompt_bytes(const Connection& connection) const noexcept;
  uint32_t quota_of(const Connection& connection) const noexcept;
  bool on_packet(Connection& connection, const uint8_t* data, size_t n);
  bool push_packet(Connection& connection, const SourcePacket& packet, uint32_t& offset,
                   int64_t arrival_ns);

  // relay_send.cpp
  void plan_due(Connection& connection, SendPlan& plan, bool only_messages);
  bool plan_frame(Connection& connection, SendPlan& plan);
  uint64_t frames_per_send(const Delivery& delivery, const RoomView& view) const noexcept;
  uint64_t frames_of_max_lag(const RoomView& view) const noexcept;
  uint64_t frames_it_may_lag(const Connection& connection) const noexcept;
  void plan_levels(RoomView& view, SendPlan& plan);
  void commit(Connection& connection, SendPlan& plan, size_t sent);

  std::thread thread_;
  MpscQueue tasks_;
  std::atomic<bool> task_signalled_{false};
  std::atomic<int64_t> due_ns_{INT64_MAX};
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  int timer_fd_ = -1;
  int64_t timer_armed_ns_ = 0;
  Scheduling scheduling_;
  bool stopping_ = false;
  int64_t stop_deadline_ns_ = 0;

  std::unordered_map<uint64_t, Connection*> connections_;
  std::vector<Connection*> connection_list_;
  std::unordered_map<uint64_t, std::unique_ptr<Room>> rooms_;
  std::unordered_map<uint64_t, std::unique_ptr<RoomView>> views_;

  struct Deadline {
    int64_t at_ns;
    uint64_t room;
  };
  std::vector<Deadline> deadlines_;  // heap, earliest first
  std::deque<RoomView*> passes_;
  ConnectionQueue<&Connection::ready> ready_;
  std::deque<uint64_t> talkers_;  // ids: some may have ended
  ConnectionQueue<&Connection::reading> readers_;
  ConnectionQueue<&Connection::held> held_;
  int64_t read_time_ns_ = 0;  // since the last sweep, of what time_to_read() limits
  size_t sweep_position_ = 0;
  int64_t next_sweep_ns_ = 0;
  int64_t next_forget_ns_ = 0;

  std::unique_ptr<RenderScratch> scratch_ = std::make_unique<RenderScratch>();
  std::unique_ptr<uint8_t[]> read_buffer_;
  // Ended in this step of the loop: they are handed over, and dropped, when nothing points to them.
  std::vector<Connection*> ended_;
  std::vector<uint64_t> deserted_views_;
  std::unique_ptr<SendPlan> plan_;
};

}  // namespace relaycore
