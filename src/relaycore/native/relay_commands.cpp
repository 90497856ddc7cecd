// What the control plane asks of a relay thread, and how a connection ends.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "relay_send.h"
#include "relay_thread.h"

namespace relaycore {
namespace {

constexpr int64_t kCloseTimeout = 3'000'000'000;

}  // namespace

void MessageEvent::Resume::run(RelayThread& thread) { thread.resume_reading(event.subject); }

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
  connections_.emplace(connection.id(), &connection);
  connection.slot = static_cast<uint32_t>(connection_list_.size());
  connection_list_.push_back(&connection);
  connection.last_progress_ns = now_ns;
  connection.deadline_ns = now_ns + shared.config.register_timeout_ns;
  if (connections_.size() == 1) next_sweep_ns_ = now_ns;
  if (!watch(connection)) {
    connection.closed_event.set_detail("the descriptor can't be watched");
    destroy(connection);
    return;
  }
  if (response && response->size()) enqueue(connection, std::move(response));
  if (stopping_) begin_close(connection, CloseReason::shutdown, 1001, "server going away");
}

void RelayThread::bind_listener(uint64_t id, uint64_t room, Ref<RoomCounters> room_counters,
                                const Subscription& subscription, Ref<Text> reply,
                                uint16_t known_stream, JoinPoint join) {
  Connection* connection = find(id);
  if (!connection || connection->closing != Closing::open || connection->deaf) return;
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
  connection->next_ping_ns = now_ns + shared.config.ping_interval_ns;
  connection->last_progress_ns = now_ns;
  // What it says of a burst is no lag.
  connection->reported_lag_ns = 0;
  connection->next_report_ns = now_ns + int64_t{kRetainMs} * 1'000'000;
  counters.listeners.add(1);
  Delivery delivery;
  delivery.layout = view->acquire_layout(LayoutKey(subscription));
  delivery.interval_ms = static_cast<uint16_t>(subscription.interval_ms);
  delivery.levels = subscription.levels;
  // A listener begins with its layout; the answer stands before its first frame.
  connection->delivery = delivery;
  ++delivery.layout->listeners;
  if (reply) enqueue(*connection, std::move(reply));
  view->add(*connection, join);
  make_ready(*connection);
}

void RelayThread::bind_source(uint64_t id, SourceSession session, Ref<Text> reply) {
  Connection* connection = find(id);
  if (!connection || connection->closing != Closing::open || connection->deaf) return;
  detach_from_room(*connection);
  connection->role = PeerRole::source;
  connection->source = std::make_unique<SourceState>();
  connection->source->link = session.link;
  connection->source->last_received_ns = now_ns;
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
    event->listeners.push_back({c->id(), c->delivery.layout->hash(), c->frames_sent,
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
  if (!connection || !connection->read_paused) return;
  // Held back for its texts, it goes on when they are processed.
  // relaxed: see Connection::texts_pending.
  if (connection->texts_pending.load(std::memory_order_relaxed) >= kMaxTextsPending) return;
  if (connection->deaf && connection->closing == Closing::open) {
    tell_fault(*connection);
    return;
  }
  connection->read_paused = false;
  read_soon(*connection);
}

// ---- queueing and closing ----

void RelayThread::enqueue(Connection& connection, Ref<Text> text, Delivery change,
                          uint64_t not_before, bool is_close) {
  auto entry = std::make_unique<OutboxEntry>();
  entry->text = std::move(text);
  entry->change = change;
  connection.outbox_bytes += outbox_cost(*entry);
  entry->is_close = is_close;
  entry->not_before = not_before;
  if (OutboxEntry* tail = connection.outbox_tail) {
    // Behind what waits already, so in its order also where frames are concerned.
    entry->not_before = std::max(not_before, tail->not_before);
    connection.outbox_tail = entry.get();
    tail->next = std::move(entry);
  } else {
    connection.outbox_tail = entry.get();
    connection.outbox = std::move(entry);
  }
  if (connection.outbox_bytes > shared.config.max_queued_bytes) {
    connection.closed_event.reason = CloseReason::too_slow;
    connection.closed_event.code = 4413;
    connection.closed_event.set_detail("messages piled up unread");
    connection.doomed = true;
  }
  if (not_before) make_ready(connection);
  else talk_soon(connection);
}

void RelayThread::begin_close(Connection& connection, CloseReason reason, uint16_t code,
                              std::string_view detail, uint64_t not_before) {
  if (connection.closing != Closing::open) return;
  connection.closing = Closing::queued;
  connection.closed_event.reason = reason;
  connection.closed_event.code = code;
  connection.closed_event.set_detail(detail);
  connection.deadline_ns = now_ns + kCloseTimeout;
  // From the event: what the caller gave may have stood there before.
  enqueue(connection, Text::close(code, connection.closed_event.detail()), {}, not_before, true);
  // Its room need not wait for the goodbye; what it still sends is read and dropped.
  if (connection.role == PeerRole::source) detach_from_room(connection);
  if (connection.read_paused) {
    connection.read_paused = false;
    read_soon(connection);
  }
}

void RelayThread::detach_from_room(Connection& connection) {
  if (connection.role == PeerRole::listener) {
    RoomView& view = *connection.view;
    connection.delivery.layout->lose_listener();
    view.release_layout(connection.delivery.layout);
    if (connection.ramp_from) view.release_layout(connection.ramp_from);
    for (OutboxEntry* e = connection.outbox.get(); e; e = e->next.get()) {
      connection.outbox_bytes -= outbox_cost(*e);
      if (e->change.layout) view.release_layout(std::exchange(e->change.layout, nullptr));
      connection.outbox_bytes += outbox_cost(*e);
      e->not_before = 0;
    }
    connection.delivery = {};
    connection.ramp_from = nullptr;
    connection.ping_outstanding = connection.lagging = connection.paused = false;
    connection.owes_frame = connection.owes_levels = false;
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
  // Who lags in one way or another has missed what it has not been sent by now, however it ends.
  if (holds_frames(connection) &&
      (connection.lagging || connection.paused || connection.blocked || connection.doomed))
    go_live(connection);
  connection.closed_event.lag_ms = static_cast<float>(lag_ms(connection));
  if (reset) {
    // Frees what the kernel still holds for a peer that does not read.
    linger now{1, 0};
    setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  unwatch(connection);
  if (!reset) ::shutdown(connection.fd, SHUT_RDWR);  // the peer hears of it whoever has a copy
  ::close(connection.fd);
  connection.fd = -1;
  detach_from_room(connection);
  ready_.remove(connection);
  readers_.remove(connection);
  held_.remove(connection);
  while (connection.outbox) connection.outbox = std::move(connection.outbox->next);
  connection.outbox_tail = nullptr;
  connection.partial = {};
  connection.backlog = {};
  Connection* last = connection_list_.back();
  connection_list_[connection.slot] = last;
  last->slot = connection.slot;
  connection_list_.pop_back();
  connections_.erase(connection.id());
  counters.connections.add_shared(~uint64_t{0});
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
