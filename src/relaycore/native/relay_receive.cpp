// What comes in: bytes to messages, messages to the control plane or into the channel rings.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "relay_send.h"
#include "relay_thread.h"

namespace relaycore {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
// Read of a source in a second, beside its audio: as many packets as it may send.
constexpr uint32_t kSourceQuota = 8 << 20;
// Read of anybody in a second before it counts as one who floods: texts, pongs, a source's headers.
constexpr uint32_t kPromptBytes = 8 << 10;
// The time between two sweeps (50 ms) in which anything is read but a source's audio, and the part of
// it for those who flood.
constexpr int64_t kReadTimeNs = 30'000'000;
constexpr int64_t kFloodTimeNs = 20'000'000;

// At most 24,576,000: 64 channels of float at 96 kHz.
uint32_t bytes_per_second(const SourceFormat& format) noexcept {
  return static_cast<uint32_t>(format.sample_rate * format.channels * sample_bytes(format.encoding));
}

}  // namespace

// What the parser calls for each message. False stops it there: the connection is paused.
struct ReceiveHandler {
  RelayThread& thread;
  Connection& connection;

  bool on_text(const uint8_t* data, size_t n) { return deliver(EventKind::text, data, n); }

  bool on_binary(const uint8_t* data, size_t n) {
    if (connection.closing != Closing::open) return true;
    if (connection.role == PeerRole::source) return thread.on_packet(connection, data, n);
    // From others it is refused at its header (RelayThread::limits_of); what was under way when a
    // source said goodbye is dropped.
    return !connection.deliver_binary || deliver(EventKind::binary, data, n);
  }

  bool on_ping(const uint8_t* data, size_t n) {
    if (connection.closing == Closing::open)
      thread.enqueue(connection, Text::message(WsOpcode::pong, view(data, n)));
    return !connection.doomed;
  }

  bool on_pong(const uint8_t* data, size_t n) {
    if (!connection.ping_outstanding || n != 8 ||
        std::memcmp(data, &connection.ping_sent_ns, 8) != 0)
      return true;
    int64_t round_trip = thread.now_ns - connection.ping_sent_ns;
    if (!connection.round_trip_ns || round_trip < connection.round_trip_ns)
      connection.round_trip_ns = round_trip;
    connection.ping_outstanding = false;
    connection.measures_lag = true;
    if (connection.lagging) {
      connection.lagging = false;
      if (!connection.join_pending) thread.go_live(connection);
      thread.make_ready(connection);
    }
    return true;
  }

  bool on_close(uint16_t code, const uint8_t* data, size_t n) {
    if (connection.closing == Closing::open) {
      connection.closed_event.reason = CloseReason::peer_closed;
      connection.closed_event.code = code;
      connection.closed_event.set_detail(view(data, n));
      thread.enqueue(connection, Text::close(code == 1005 ? 1000 : code, ""), {}, 0, true);
    }
    connection.closing = Closing::replied;
    connection.deadline_ns = thread.now_ns + kSecond;
    thread.talk_soon(connection);
    return true;
  }

  static std::string_view view(const uint8_t* data, size_t n) {
    return {reinterpret_cast<const char*>(data), n};
  }

  bool deliver(EventKind kind, const uint8_t* data, size_t n) {
    if (connection.closing != Closing::open) return true;
    auto* event = new MessageEvent(kind, connection.id());
    event->connection = &connection;
    event->received_us = thread.shared.clock_us(thread.now_ns);
    event->data.assign(reinterpret_cast<const char*>(data), n);
    // relaxed: see Connection::texts_pending.
    uint32_t pending = connection.texts_pending.fetch_add(1, std::memory_order_relaxed) + 1;
    bool pause = pending >= kMaxTextsPending;
    if (pause) {
      connection.read_paused = true;
      // What is not read can't answer a ping. One that is awaited already, by a listener that gets
      // nothing until then, stands behind the texts.
      if (!connection.lagging) connection.ping_outstanding = false;
    }
    thread.shared.post_event(event);
    return !pause;
  }
};

// One read at most, so that others have their turn.
void RelayThread::receive(Connection& connection) {
  if (connection.fd < 0 || connection.doomed || connection.read_paused) return;
  if (connection.source && connection.source->pending.message) {
    PendingPacket& pending = connection.source->pending;
    if (!push_packet(connection, pending.packet, pending.offset, pending.arrival_ns)) return;
    pending.message.reset();
  }
  if (Backlog& backlog = connection.backlog; backlog.data) {
    backlog.offset += consume(connection, backlog.data.get() + backlog.offset,
                              backlog.size - backlog.offset);
    if (backlog.offset == backlog.size) backlog = {};
  }
  if (!connection.readable || connection.read_paused) return;
  // No more than it may say promptly goes before what others say.
  size_t prompt = prompt_bytes(connection);
  size_t limit = connection.read_lately < prompt ? prompt : connection.read_quota;
  size_t at_once = connection.source ? kReadBytes : kReadBytesOfOthers;
  size_t most = std::min(at_once, limit - connection.read_lately);
  if (most == 0) {
    held_.push(connection);
    return;
  }
  ssize_t got = ::recv(connection.fd, read_buffer_.get(), most, MSG_DONTWAIT);
  if (got > 0) {
    connection.last_progress_ns = now_ns;
    if (connection.source) connection.source->last_received_ns = now_ns;
    connection.bytes_received += static_cast<size_t>(got);
    connection.read_lately += static_cast<uint32_t>(got);
    counters.bytes_received.add(static_cast<size_t>(got));
    // A short read has emptied the socket; what comes now makes a new edge. The end of the
    // stream makes none of its own once it has been told.
    if (static_cast<size_t>(got) < most && !connection.read_to_end) connection.readable = false;
    size_t taken = consume(connection, read_buffer_.get(), static_cast<size_t>(got));
    if (size_t rest = static_cast<size_t>(got) - taken) {
      Backlog& backlog = connection.backlog;
      backlog.data = std::make_unique_for_overwrite<uint8_t[]>(rest);
      backlog.size = static_cast<uint32_t>(rest);
      std::memcpy(backlog.data.get(), read_buffer_.get() + taken, rest);
    }
  } else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
    if (connection.closing == Closing::open && got < 0)
      connection.closed_event.set_detail(std::strerror(errno));
    // It may still read our answer to its close.
    if (got == 0 && connection.closing == Closing::replied) send_due(connection);
    destroy(connection);
    return;
  } else if (errno != EINTR) {
    connection.readable = false;
  }
  if (connection.readable && !connection.read_paused) read_soon(connection);
}

// What a connection may send, so that nobody makes the server hold what it would refuse in the end.
WsLimits RelayThread::limits_of(const Connection& connection) const noexcept {
  const RelayConfig& config = shared.config;
  WsLimits limits{config.max_text_bytes, config.max_binary_bytes};
  if (connection.role == PeerRole::source) {
    size_t second = bytes_per_second(connection.source->link->format);
    limits.max_binary = kHeaderBytes + std::min(config.max_binary_bytes, second);
  } else if (!connection.deliver_binary && connection.closing == Closing::open) {
    limits.refuse_binary = connection.role == PeerRole::listener ? 1003 : 4400;
  }
  return limits;
}

// Some frames mean nothing and can't be forbidden, as pongs. A thread that reads them without end is
// late whatever it does between: one that runs in real time all the time is stopped by the kernel. So
// each connection has a quota for a second, and all together have a part of the thread's time, the
// less the more they say: who floods, however many they are, makes nobody wait for long who does not.
//
// The time since the last sweep that may have been spent for this connection to be read now.
int64_t RelayThread::time_to_read(Connection& connection) noexcept {
  if (now_ns - connection.read_window_ns >= kSecond) {
    connection.read_window_ns = now_ns;
    connection.read_lately = 0;
    // What was under way when a source was closed stands before the peer's answer.
    if (connection.closing == Closing::open) connection.read_quota = 0;
  }
  // Whose role has changed keeps what it had until the second is over: it has been used already.
  connection.read_quota = std::max(connection.read_quota, quota_of(connection));
  if (connection.read_lately >= prompt_bytes(connection)) return kFloodTimeNs;
  return connection.source ? INT64_MAX : kReadTimeNs;
}

uint32_t RelayThread::prompt_bytes(const Connection& connection) const noexcept {
  if (!connection.source) return kPromptBytes;
  return kPromptBytes + 2 * bytes_per_second(connection.source->link->format);
}

// Who only talks needs no more than may be unprocessed.
uint32_t RelayThread::quota_of(const Connection& connection) const noexcept {
  if (connection.deliver_binary) return UINT32_MAX;
  if (connection.source)
    return kSourceQuota + 4 * bytes_per_second(connection.source->link->format);
  size_t texts = kMaxTextsPending * shared.config.max_text_bytes;
  return static_cast<uint32_t>(std::clamp<size_t>(texts, kReadBytes, UINT32_MAX));
}

// Returns how much of it was taken; less than all when reading is paused.
size_t RelayThread::consume(Connection& connection, uint8_t* data, size_t n) {
  ReceiveHandler handler{*this, connection};
  WsParser::Result result = connection.parser.feed(data, n, limits_of(connection), handler);
  if (result.error_code && connection.closing == Closing::open) {
    // What the peer answers can't be read any more: it is enough that it has been told.
    connection.deaf = true;
    connection.closed_event.set_detail(result.error);
    connection.closed_event.code = result.error_code;
    connection.closed_event.reason =
        result.error_code == 1009 ? CloseReason::too_big : CloseReason::protocol_error;
    connection.deadline_ns = now_ns + kSecond;
    // Answers to what came before stand before the close, if the control plane has them soon: it is
    // woken, since it may have seen all there was.
    connection.read_paused = true;
    // relaxed: see Connection::texts_pending. wake_poller() releases what was counted.
    if (connection.texts_pending.fetch_add(kFaultWeight, std::memory_order_relaxed) != 0)
      shared.wake_poller();
    else
      tell_fault(connection);
  }
  return result.consumed;
}

void RelayThread::tell_fault(Connection& connection) {
  const ClosedEvent& closed = connection.closed_event;
  begin_close(connection, closed.reason, closed.code, closed.detail());
  connection.deadline_ns = now_ns + kSecond;
}

// ---- source packets ----

bool RelayThread::on_packet(Connection& connection, const uint8_t* data, size_t n) {
  SourceState& source = *connection.source;
  SourceLink& link = *source.link;
  // relaxed: see SourceLink::cut; a packet too many goes nowhere.
  if (link.cut.load(std::memory_order_relaxed)) return true;
  if (now_ns - source.rate_window_ns >= kSecond) {
    source.rate_window_ns = now_ns;
    source.packets_in_window = 0;
  }
  if (++source.packets_in_window > shared.config.max_packets_per_s) {
    begin_close(connection, CloseReason::rate_limited, 4429, "too many packets a second");
    return true;
  }
  SourcePacket packet;
  PacketError error = parse_source_packet(data, n, link.format, packet);
  if (error != PacketError::ok) {
    uint16_t code = close_code(error);
    begin_close(connection, code == 1009 ? CloseReason::too_big : CloseReason::protocol_error, code,
                describe(error));
    return true;
  }
  counters.packets.add(1);
  link.counters->packets.add_shared(1);
  if (packet.time_us) {
    uint64_t end_us = packet.time_us + uint64_t{packet.sample_count} * 1'000'000 / link.format.sample_rate;
    // relaxed, then release: see SourceLink::has_capture_offset.
    link.capture_offset_us.store(
        static_cast<int64_t>(static_cast<uint64_t>(shared.clock_us(now_ns)) - end_us),
        std::memory_order_relaxed);
    link.has_capture_offset.store(true, std::memory_order_release);
  }
  uint32_t offset = 0;
  if (push_packet(connection, packet, offset, now_ns)) return true;
  // The source is ahead of its room. The rest waits, and with it the reading.
  PendingPacket& pending = source.pending;
  pending.message = std::make_unique_for_overwrite<uint8_t[]>(n);
  std::memcpy(pending.message.get(), data, n);
  pending.packet = packet;
  pending.packet.payload = pending.message.get() + (packet.payload - data);
  pending.offset = offset;
  pending.arrival_ns = now_ns;
  return false;
}

// Writes as much of the packet as the rings take, the same samples of every channel at a time, so
// that channels stay together. False: the rest waits, reading is paused until the room makes space.
bool RelayThread::push_packet(Connection& connection, const SourcePacket& packet, uint32_t& offset,
                              int64_t arrival_ns) {
  SourceLink& link = *connection.source->link;
  size_t sample = sample_bytes(packet.encoding);
  bool has_waited = false;
  // relaxed: see SourceLink::cut.
  while (offset < packet.sample_count && !link.cut.load(std::memory_order_relaxed)) {
    size_t n = packet.sample_count - offset;
    for (unsigned c = 0; c < packet.channel_count; ++c)
      n = std::min(n, link.ring(packet.first_channel + c).free_samples());
    if (n == 0) {
      if (has_waited) {
        home_of(link.room).call([room = link.room](RelayThread& home) {
          if (Room* found = home.find_room(room)) found->drain_rings();
        });
        return false;
      }
      has_waited = true;
      connection.read_paused = true;
      // acq_rel: see SourceLink::writer_waits. And then it looks once more.
      link.writer_waits.exchange(true, std::memory_order_acq_rel);
      continue;
    }
    for (unsigned c = 0; c < packet.channel_count; ++c) {
      ChannelRing& ring = link.ring(packet.first_channel + c);
      const uint8_t* samples = packet.payload + c * packet.plane_bytes + offset * sample;
      if (packet.encoding == Encoding::s16le)
        ring.push_s16(packet.timestamp + offset, arrival_ns, samples, n);
      else
        ring.push(packet.timestamp + offset, arrival_ns, samples, n);
    }
    offset += static_cast<uint32_t>(n);
    if (has_waited) {  // the reader was quicker than the flag
      has_waited = false;
      connection.read_paused = false;
    }
  }
  connection.read_paused = false;
  return true;
}

}  // namespace relaycore
