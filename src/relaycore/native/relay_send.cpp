// The fan-out: per connection one sendmsg with everything that is due. The only file that sends.
#include "relay_send.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace relaycore {
namespace {

constexpr uint32_t kSmallestLowat = 16 * 1024;
// Below this rate a socket buffer of the usual size would hold many seconds.
constexpr size_t kSlowBytesPerSecond = 256'000 / 8;
constexpr int kSlowSendBuffer = 16 * 1024;
constexpr int kFastSendBuffer = 1024 * 1024;  // for one that was slow: the kernel tunes it no more

constexpr int64_t kLongestBurst = int64_t{kRetainMs} * 1'000'000;  // all that is kept

// Of what players report.
constexpr int64_t kReportInterval = 500'000'000;
constexpr int64_t kPauseInterval = 10'000'000'000;
constexpr int64_t kLongestPause = kLongestBurst;
constexpr int64_t kLongestLag = 60'000'000'000;  // beyond that its clock is wrong

// One part is the usual case, and send() spares the kernel the list of parts: 5 % of the whole.
ssize_t write_plan(int fd, iovec* parts, int count) noexcept {
  constexpr int kFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
  if (count == 1) return ::send(fd, parts->iov_base, parts->iov_len, kFlags);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(count);
  return ::sendmsg(fd, &message, kFlags);
}

}  // namespace

// ---- lag ----

double RelayThread::lag_ms(const Connection& connection) const noexcept {
  if (!connection.ping_outstanding) return 0;
  int64_t lag = now_ns - connection.ping_sent_ns - connection.round_trip_ns;
  return static_cast<double>(std::max<int64_t>(lag, 0)) / 1e6;
}

bool RelayThread::over_lag(Connection& connection) noexcept {
  if (connection.lagging) return true;
  if (connection.paused) {
    if (now_ns < connection.paused_until_ns) return true;
    connection.paused = false;
    go_live(connection);
  }
  if (!connection.ping_outstanding || connection.read_paused) return false;
  // While a thread stood still, no answer could be heard.
  int64_t since_ns = connection.ping_sent_ns;
  if (connection.view) since_ns = std::max(since_ns, connection.view->came_late_ns);
  int64_t lag = now_ns - since_ns - connection.round_trip_ns;
  // A burst may take as long as the audio in it.
  int64_t burst_ns = connection.measures_lag ? 0 : kLongestBurst;
  connection.lagging = lag > shared.config.max_lag_ns + burst_ns;
  return connection.lagging;
}

// What stands between us and a player that lags (in a proxy, a browser, or the player itself) can't
// be taken back; it can be given the time to be played out. So nothing is sent for as long as the
// player lags. Two reports in a row must say so: one that fell behind for a moment may have thrown
// away what it missed. A wrong report costs its own listener a pause now and then, and nobody else
// anything: it evicts nobody, for only a queue that does not shrink does.
void RelayThread::report_lag(uint64_t id, int64_t lag_ns) noexcept {
  Connection* connection = find(id);
  if (!connection || connection->role != PeerRole::listener || connection->join_pending ||
      connection->closing != Closing::open || now_ns < connection->next_report_ns)
    return;
  connection->next_report_ns = now_ns + kReportInterval;
  int64_t grouped_ns = int64_t{connection->delivery.interval_ms} * 1'000'000;
  bool lags = lag_ns > shared.config.max_lag_ns + grouped_ns && lag_ns <= kLongestLag;
  int64_t before = std::exchange(connection->reported_lag_ns, lags ? lag_ns : 0);
  if (!lags || !before || connection->lagging || now_ns < connection->next_pause_ns) return;
  connection->paused = true;
  connection->paused_until_ns = now_ns + std::min({lag_ns, before, kLongestPause});
  connection->next_pause_ns = connection->paused_until_ns + kPauseInterval;
  // What it says until it has heard something new is of before.
  connection->next_report_ns = connection->paused_until_ns + kReportInterval;
  connection->reported_lag_ns = 0;
}

// Frames it has missed are given up, whole ones only: what went out half is finished first.
void RelayThread::go_live(Connection& connection) noexcept {
  skip_to(connection, connection.view->blocks.head());
  connection.catching_up = false;
}

// The socket has room again. Whoever was kept waiting for it longer than a listener may lag goes on at
// live; but a burst may take as long as the audio in it, and it is not the socket's fault what came late
// itself, since a thread had stood still.
void RelayThread::unblock(Connection& connection) {
  connection.blocked = false;
  if (holds_frames(connection) && !connection.catching_up) {
    const RoomView& view = *connection.view;
    if (view.blocks.head() - connection.cursor > frames_it_may_lag(connection) &&
        now_ns - view.came_late_ns > shared.config.max_lag_ns)
      go_live(connection);
  }
  if (connection.outbox) talk_soon(connection);
  make_ready(connection);
}

void RelayThread::skip_to(Connection& connection, uint64_t cursor) noexcept {
  RoomView& view = *connection.view;
  uint64_t missed = cursor - connection.cursor;
  if (missed) connection.owes_levels = false;
  connection.cursor = cursor;
  connection.frames_dropped += missed;
  counters.frames_dropped.add(missed);
  view.counters->frames_dropped.add_shared(missed);
}

// Frames for which there was no time. When a thread stood still, all that is kept is sent. But where there is
// more to send than time to send it, everybody would stay behind by all that is kept, which is later than
// players play: then it is by no more than a listener may lag. Not by less: nothing would be left for this
// turn, nor for the next one that comes as late.
void RelayThread::give_up_late(Connection& connection) noexcept {
  RoomView& view = *connection.view;
  uint64_t head = view.blocks.head(), first = view.blocks.oldest();
  if (view.outpaced && !connection.catching_up)
    first = std::max(first, head - std::min(head, frames_it_may_lag(connection)));
  if (connection.cursor >= first) return;
  if (!connection.catching_up) view.cut_short = true;
  skip_to(connection, first);
}

// A listener that takes nothing: its kernel queue does not shrink and it says nothing either.
// Pings that stay unanswered are no reason while it takes what it is sent. What a socket that is not
// TCP takes, a proxy on this machine takes, which says nothing of the listener behind: of one that
// lags there, and so is sent nothing, the only sign of life is what it says.
void RelayThread::check_stalled(Connection& connection) {
  over_lag(connection);
  if (!connection.blocked && !connection.lagging) {
    connection.last_progress_ns = now_ns;
    return;
  }
  bool only_talk_counts = connection.lagging && !connection.is_tcp && !connection.read_paused;
  int unsent = 0;
  if (!only_talk_counts && ioctl(connection.fd, SIOCOUTQ, &unsent) == 0) {
    if (unsent == 0 || unsent < connection.outq_seen) connection.last_progress_ns = now_ns;
    connection.outq_seen = unsent;
  }
  if (now_ns - connection.last_progress_ns < shared.config.evict_after_ns) return;
  connection.closed_event.reason = CloseReason::too_slow;
  connection.closed_event.code = 4413;
  connection.closed_event.set_detail("took nothing for too long");
  evict(connection);
}

void RelayThread::evict(Connection& connection) {
  counters.evicted.add(1);
  destroy(connection, true);
}

// Keeps what the kernel holds unsent small, so that it is the relay that decides what a slow
// listener misses.
void RelayThread::tune_socket(Connection& connection, size_t frame_bytes, unsigned frame_ms) {
  bool is_slow = frame_bytes * 1000 / frame_ms < kSlowBytesPerSecond;
  // A power of two, so that lengths that alternate (44.1 kHz) don't set it again and again.
  uint32_t lowat = std::max(kSmallestLowat, std::bit_ceil(static_cast<uint32_t>(2 * frame_bytes)));
  if (connection.lowat == lowat && connection.is_slow == is_slow) return;
  if (connection.is_tcp)
    setsockopt(connection.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat);
  // Of a socket that is not TCP the buffer is all there is: about 100 ms.
  int size = is_slow ? kSlowSendBuffer
                     : std::max<int>(static_cast<int>(lowat),
                                     static_cast<int>(frame_bytes * 100 / frame_ms));
  bool was_slow = connection.lowat != 0 && connection.is_slow;
  if (is_slow || !connection.is_tcp || was_slow)
    setsockopt(connection.fd, SOL_SOCKET, SO_SNDBUF,
               was_slow && connection.is_tcp ? &kFastSendBuffer : &size, sizeof size);
  connection.lowat = lowat;
  connection.is_slow = is_slow;
}

// ---- planning ----

// The least distance between sends in frames of the stream that plays: what was asked, rounded up,
// but no more than a listener may lag, nor than half of what is kept, of which some may be gone by then.
uint64_t RelayThread::frames_per_send(const Delivery& delivery, const RoomView& view) const noexcept {
  if (delivery.interval_ms == 0 || view.blocks.oldest() == view.blocks.head()) return 1;
  const StreamInfo& stream = *view.blocks[view.blocks.head() - 1]->stream;
  auto asked = static_cast<uint64_t>((delivery.interval_ms + stream.frame_ms - 1) / stream.frame_ms);
  return std::min({asked, frames_of_max_lag(view), uint64_t{stream.retained_blocks()} / 2});
}

// Of the stream that plays; at least one.
uint64_t RelayThread::frames_of_max_lag(const RoomView& view) const noexcept {
  if (view.blocks.oldest() == view.blocks.head()) return 1;
  int64_t frame_ms = view.blocks[view.blocks.head() - 1]->stream->frame_ms;
  return static_cast<uint64_t>(std::max<int64_t>(1, shared.config.max_lag_ns / 1'000'000 / frame_ms));
}

// With what is grouped for it.
uint64_t RelayThread::frames_it_may_lag(const Connection& connection) const noexcept {
  const RoomView& view = *connection.view;
  return frames_of_max_lag(view) + frames_per_send(connection.delivery, view);
}

// The next frame the listener is due. Shared ones come from the layout; one that only this listener
// gets, for its layout is its own or its gains are moving, is rendered now and kept by nobody.
bool RelayThread::plan_frame(Connection& connection, SendPlan& plan) {
  RoomView& view = *connection.view;
  const Block& block = *view.blocks[plan.cursor];
  if (block.stream->stream != plan.stream) {
    const Ref<Text>& announce = block.stream->announce;
    plan.add(SendPlan::Kind::announce, announce->data(), announce->size()).block = &block;
    plan.stream = block.stream->stream;
    if (plan.full()) return false;
  }
  Layout& layout = *plan.delivery.layout;
  FrameRef frame;
  if (layout.is_shared() && !plan.ramp_from) {
    uint64_t built = layout.frames_built;
    frame = layout.frame(block, scratch());
    counters.frames_built.add(layout.frames_built - built);
  } else {
    if (plan.private_used == plan.private_frames.size()) plan.private_frames.emplace_back();
    FrameRef& mine = plan.private_frames[plan.private_used++];
    size_t payload = frame_payload_bytes(layout.key(), block);
    if (!mine || !mine->unique() || !mine->fits(payload))
      mine = FrameRef::adopt(Frame::create(payload));
    render_frame(layout.key(), plan.ramp_from ? &plan.ramp_from->key() : nullptr, block,
                 scratch(), *mine.get());
    counters.frames_built.add(1);
    ++layout.frames_built;
    frame = mine;
  }
  SendPlan::Item& item = plan.add(SendPlan::Kind::frame, frame->data(), frame->size());
  item.frame = frame;
  item.block = &block;
  plan.ramp_from = nullptr;
  ++plan.cursor;
  if (plan.delivery.levels && view.levels_end_with(block)) {
    item.owes_levels = true;
    plan_levels(view, plan);
  }
  return !plan.full();
}

// The levels that stand behind the frame before the cursor.
void RelayThread::plan_levels(RoomView& view, SendPlan& plan) {
  if (plan.full()) return;
  if (FrameRef levels = view.levels_after(plan.cursor - 1)) {
    const Frame& bytes = *levels.get();
    plan.add(SendPlan::Kind::levels, bytes.data(), bytes.size()).frame = std::move(levels);
  }
}

// Messages and frames in their order: a message goes before every frame that it is not told to
// wait for. A change of delivery goes with its message, and while the room plays the two go with
// the first frame that reflects them.
void RelayThread::plan_due(Connection& connection, SendPlan& plan, bool only_messages) {
  bool has_frames = holds_frames(connection);
  uint64_t head = 0, flush_before = 0;
  if (has_frames) {
    RoomView& view = *connection.view;
    head = view.blocks.head();
    give_up_late(connection);
    flush_before = connection.catching_up || connection.owes_group ? head : view.flush_before;
  }
  plan.cursor = connection.cursor;
  plan.stream = connection.stream;
  plan.delivery = connection.delivery;
  plan.ramp_from = connection.ramp_from;
  bool is_live = has_frames && connection.view->live;
  bool owes_frame = is_live && connection.owes_frame;
  if (has_frames && connection.owes_levels) plan_levels(*connection.view, plan);
  OutboxEntry* entry = connection.outbox.get();
  while (!plan.full()) {
    bool goes_first = entry && !owes_frame && (!has_frames || entry->not_before <= plan.cursor);
    if (goes_first && entry->change.layout && is_live) {
      uint64_t group = frames_per_send(entry->change, *connection.view);
      if (plan.cursor >= flush_before && head - plan.cursor < group) return;
      owes_frame = true;
    }
    if (goes_first) {
      const Ref<Text>& text = entry->text;
      if (text && text->is_stamped()) text->stamp(static_cast<uint64_t>(shared.clock_us(now_ns)));
      plan.add(SendPlan::Kind::message, text ? text->data() : nullptr, text ? text->size() : 0)
          .entry = entry;
      if (entry->change.layout) {
        if (!plan.ramp_from && plan.delivery.layout != entry->change.layout &&
            plan.delivery.layout->is_mix() && entry->change.layout->is_mix())
          plan.ramp_from = plan.delivery.layout;
        if (!entry->change.layout->is_mix()) plan.ramp_from = nullptr;
        plan.delivery = entry->change;
      }
      if (entry->is_close) return;
      entry = entry->next.get();
      continue;
    }
    if (!has_frames || plan.cursor == head || (only_messages && !owes_frame)) return;
    // What a message waits for is not held back.
    if (plan.cursor >= flush_before && !entry && !owes_frame) {
      uint64_t group = frames_per_send(plan.delivery, *connection.view);
      if (head - plan.cursor < group) return;
      flush_before = plan.cursor + (head - plan.cursor) / group * group;
      connection.owes_group = true;
    }
    owes_frame = false;
    if (!plan_frame(connection, plan)) return;
  }
}

// ---- sending ----

bool RelayThread::send_due(Connection& connection, bool only_messages) {
  if (connection.fd < 0) return false;
  if (connection.doomed) {
    evict(connection);
    return false;
  }
  bool is_held = connection.closing != Closing::replied && over_lag(connection);
  // What went out half is finished all the same: it may be the ping whose pong is awaited.
  if (connection.blocked || (is_held && !connection.partial)) return false;
  // Before our goodbye goes what waits for frames, and those; no other turn may come.
  if (connection.closing == Closing::replied) only_messages = false;
  SendPlan& plan = *plan_;
  plan.private_used = 0;
  bool has_frames = holds_frames(connection);
  if (connection.partial) {
    plan.add(SendPlan::Kind::partial, connection.partial->data() + connection.partial_offset,
             connection.partial->size() - connection.partial_offset);
  }
  // Behind a close frame nothing follows.
  bool may_talk = !is_held &&
                  (connection.closing == Closing::open || connection.closing == Closing::queued ||
                   (connection.closing == Closing::replied && connection.outbox));
  bool pings = !is_held && !only_messages && connection.role == PeerRole::listener &&
               connection.closing == Closing::open && now_ns >= connection.next_ping_ns &&
               !connection.ping_outstanding && !connection.read_paused;
  if (pings && !connection.measures_lag && now_ns - connection.next_ping_ns >= kLongestBurst) {
    // It never got the whole of its burst: from here on it lags like anybody.
    if (has_frames) give_up_late(connection);
    connection.measures_lag = true;
    connection.catching_up = false;
  }
  // Before what waits: into a socket that is never quite empty the end of the plan never goes. But
  // behind a burst, and behind the answer to the handshake.
  bool pings_last = !connection.measures_lag || connection.bytes_sent == 0;
  if (pings && !pings_last) plan.add_ping(now_ns);
  if (may_talk) plan_due(connection, plan, only_messages);
  if (pings && pings_last && !plan.full()) plan.add_ping(now_ns);
  if (plan.count == 0) {
    if (has_frames && connection.cursor == connection.view->blocks.head())
      connection.catching_up = false;
    if (connection.closing == Closing::replied) destroy(connection);
    return false;
  }
  size_t sent = 0;
  if (plan.bytes) {
    counters.sends.add(1);
    ssize_t result;
    do result = write_plan(connection.fd, plan.parts, plan.count);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      plan.clear();
      if (connection.closing == Closing::open)
        connection.closed_event.set_detail(std::strerror(errno));
      destroy(connection);
      return true;
    }
    sent = result < 0 ? 0 : static_cast<size_t>(result);
  }
  if (sent < plan.bytes) connection.blocked = true;
  commit(connection, plan, sent);
  return true;
}

// Takes over what went out: everything whole, and the rest of what went out half.
void RelayThread::commit(Connection& connection, SendPlan& plan, size_t sent) {
  connection.bytes_sent += sent;
  counters.bytes_sent.add(sent);
  if (connection.view) connection.view->counters->bytes_sent.add_shared(sent);
  if (sent) connection.last_progress_ns = now_ns;
  uint64_t frames = 0;
  size_t left = sent;
  int i = 0;
  for (; i < plan.count; ++i) {
    SendPlan::Item& item = plan.items[i];
    size_t size = plan.parts[i].iov_len;
    // A change without a message takes no bytes; it counts once what stands before it has gone.
    if (left == 0 && size > 0) break;
    size_t taken = std::min(left, size);
    left -= taken;
    switch (item.kind) {
      case SendPlan::Kind::partial:
        connection.partial_offset += static_cast<uint32_t>(taken);
        if (connection.partial_offset == connection.partial->size()) connection.partial = {};
        break;
      case SendPlan::Kind::message: {
        OutboxEntry& entry = *item.entry;
        connection.outbox_bytes -= outbox_cost(entry);
        if (entry.change.layout) {
          apply(connection, std::exchange(entry.change, {}));
          connection.owes_frame = true;
        }
        if (entry.is_close)
          connection.closing =
              connection.closing == Closing::replied ? Closing::replied : Closing::sent;
        break;
      }
      case SendPlan::Kind::announce:
        connection.stream = item.block->stream->stream;
        break;
      case SendPlan::Kind::frame:
        connection.cursor = item.block->number + 1;
        connection.owes_frame = false;
        connection.owes_levels = item.owes_levels;
        ++connection.delivery.layout->frames_sent;
        ++frames;
        if (connection.ramp_from) {
          connection.view->release_layout(connection.ramp_from);
          connection.ramp_from = nullptr;
        }
        tune_socket(connection, size, item.block->stream->frame_ms);
        break;
      case SendPlan::Kind::levels:
        connection.owes_levels = false;
        break;
      case SendPlan::Kind::ping:
        std::memcpy(&connection.ping_sent_ns, plan.ping + 2, 8);
        connection.ping_outstanding = true;
        connection.next_ping_ns = connection.ping_sent_ns + shared.config.ping_interval_ns;
        break;
    }
    if (taken < size && item.kind != SendPlan::Kind::partial) {
      if (item.frame) {
        connection.partial = item.frame;
        connection.partial_offset = static_cast<uint32_t>(taken);
      } else {
        const auto* data = static_cast<const uint8_t*>(plan.parts[i].iov_base);
        connection.partial = FrameRef::adopt(Frame::copy_of(data + taken, size - taken));
        connection.partial_offset = 0;
      }
    }
    if (item.kind == SendPlan::Kind::message) {
      connection.outbox = std::move(connection.outbox->next);
      if (!connection.outbox) connection.outbox_tail = nullptr;
    }
    if (taken < size) break;
  }
  if (frames) {
    connection.frames_sent += frames;
    counters.frames_sent.add(frames);
    connection.view->counters->frames_sent.add_shared(frames);
  }
  bool all_gone = sent == plan.bytes;
  plan.clear();
  if (!all_gone) return;
  // Not closed at once: unread bytes would make a reset of it, and the close frame might be lost.
  if (connection.closing == Closing::sent && connection.deaf) ::shutdown(connection.fd, SHUT_WR);
  if (connection.closing == Closing::replied && !connection.outbox) {
    destroy(connection);
    return;
  }
  // A full plan leaves some behind: its turn comes again.
  bool more = connection.outbox && connection.closing != Closing::sent &&
              (!holds_frames(connection) || connection.outbox->not_before <= connection.cursor);
  if (holds_frames(connection)) {
    if (connection.cursor == connection.view->blocks.head())
      connection.catching_up = connection.owes_group = false;
    else
      more = more || connection.catching_up || connection.owes_group ||
             connection.cursor < connection.view->flush_before;
  }
  if (more) make_ready(connection);
}

void RelayThread::apply(Connection& connection, const Delivery& change) {
  RoomView& view = *connection.view;
  Layout* old = connection.delivery.layout;
  ++change.layout->listeners;  // first: often they are the same
  old->lose_listener();
  connection.delivery = change;
  if (connection.ramp_from && !change.layout->is_mix()) {
    view.release_layout(connection.ramp_from);
    connection.ramp_from = nullptr;
  }
  if (!connection.ramp_from && old != change.layout && old->is_mix() && change.layout->is_mix())
    connection.ramp_from = old;  // with its reference
  else
    view.release_layout(old);
}

}  // namespace relaycore
