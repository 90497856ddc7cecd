// What the server says to a load client's listeners, and what is counted of it.
#include <algorithm>
#include <cstring>

#include "load_thread.h"

namespace relaycore {

namespace {

constexpr size_t kMaxErrors = 64;              // kinds that are told apart
constexpr size_t kRoundTrips = 16;             // of which the shortest counts
constexpr int64_t kFirstPingsNs = 50'000'000;  // between the first, so that the clock is soon right
constexpr int64_t kPingsNs = 1'000'000'000;

}  // namespace

// ---- the server's clock ----

void LoadThread::ask_clock(int64_t now) {
  if (target_.config.clock != LoadClock::ping || now < ask_clock_at_ns_) return;
  ask_clock_at_ns_ = now + kFirstPingsNs;
  const auto found = std::find_if(connections_.begin(), connections_.end(), [](const auto& c) {
    return c.state == LoadConnection::State::joined && c.bytes_per_s < 0 && c.unsent.empty();
  });
  if (found == connections_.end()) return;
  if (++clock_asked_ > kRoundTrips) ask_clock_at_ns_ = now + kPingsNs;
  const std::string text =
      R"({"type":"ping","t":)" + std::to_string(monotonic_ns() / 1000) + "}";
  transmit(*found, ws_client_header(WsOpcode::text, text.size()), text);
}

// As NTP does; of the last exchanges the one with the shortest round trip counts: the less a
// message queued, the less its two ways can differ.
void LoadThread::take_clock(std::string_view pong) {
  const int64_t now = now_ns_ / 1000, asked = json_number(pong, R"("t":)");
  const int64_t received = json_number(pong, R"("received":)");
  const int64_t sent = json_number(pong, R"("sent":)");
  if (received == 0 || sent == 0) return;
  round_trips_.push_back({std::max<int64_t>((now - asked) - (sent - received), 0),
                          ((received - asked) + (sent - now)) / 2});
  if (round_trips_.size() > kRoundTrips) round_trips_.pop_front();
  const auto best = std::min_element(round_trips_.begin(), round_trips_.end(),
                                     [](const auto& a, const auto& b) { return a.us < b.us; });
  clock_known_ = true;
  clock_offset_us_ = best->offset_us;
  figures_.round_trip_us = best->us;
}

// ---- what connections tell ----

void LoadThread::on_answer(LoadConnection& c, std::string_view body) {
  c.token = json_text(body, R"("roomToken":)");
  if (c.token.empty()) return on_error(c, "an answer without a roomToken");
  c.asks = false;
  if (target_.config.reuse) return request(c);
  c.stream.close();
  --figures_.alive;
  --entering_;
  connect_one(c);
}

void LoadThread::on_open(LoadConnection& c) {
  if (figures_.first_open_ns == 0) figures_.first_open_ns = now_ns_;
  if (!target_.config.registers) return on_joined(c);
  const Part& part = parts_[c.number];
  const auto& texts = part.sources ? part.sources->registers : part.listeners->registers;
  if (texts.empty()) return;  // the server registers by itself
  std::string text = texts[part.number % texts.size()];
  static constexpr std::string_view kToken = "$TOKEN";
  if (const size_t at = text.find(kToken); at != text.npos)
    text.replace(at, kToken.size(), c.token);
  if (c.is_lost && c.last_timestamp > 0)
    text.insert(1, R"("from":)" + std::to_string(c.last_timestamp) + ",");
  transmit(c, ws_client_header(WsOpcode::text, text.size()), text);
}

void LoadThread::on_joined(LoadConnection& c) {
  c.state = LoadConnection::State::joined;
  c.record.state = LoadRecord::joined;
  --entering_;
  ++figures_.joined;
  figures_.last_joined_ns = now_ns_;
  // What it missed comes late, and through nobody's fault.
  if (c.is_lost && clock_known_) c.live_from_us = now_ns_ / 1000 + clock_offset_us_;
  if (c.record.joined_ns == 0) {
    c.record.joined_ns = now_ns_;
    c.record.join_ns = now_ns_ - c.started_ns;
    ++figures_.settled;
    figures_.join.add(c.record.join_ns / 1000);
  }
  if (c.is_source) {
    pacing_[c.number].begin(now_ns_, clock_ns(CLOCK_REALTIME) - monotonic_ns());
    if (c.is_lost) came_back(c);
  } else if (const int64_t limit_to = parts_[c.number].listeners->bytes_per_s; limit_to >= 0) {
    limit(c.number, limit_to);
  }
}

void LoadThread::on_text(LoadConnection& c, std::string_view text) {
  const std::string_view type = json_text(text, R"("type":)");
  if (type == "listenerRegistered" || type == "sourceRegistered") {
    if (c.state == LoadConnection::State::open) on_joined(c);
  } else if (type == "pong" && target_.config.clock == LoadClock::ping) {
    take_clock(text);
  } else if (type == "subscribed" || type == "mixChanged") {
    if (c.asked_ns.empty()) return;  // the owner of the room set the mix
    ++figures_.replies;
    figures_.reply.add((now_ns_ - c.asked_ns.front()) / 1000);
    c.asked_ns.pop_front();
  } else if (type == "config" && target_.config.clock == LoadClock::config) {
    const int64_t offset = json_number(text, R"("serverTime":)") - now_ns_ / 1000;
    clock_offset_us_ = clock_known_ ? std::max(clock_offset_us_, offset) : offset;
    clock_known_ = true;
  } else if (type == "roomToken") {
    c.token = json_text(text, R"("roomToken":)");
  } else if (type == "error") {
    note_error(text.substr(0, 200));
    if (!c.asked_ns.empty()) c.asked_ns.pop_front();  // that was the answer
  }
}

void LoadThread::on_frame(LoadConnection& c, const PacketHeader& header) {
  const auto time_us = static_cast<int64_t>(header.time_us);
  if (time_us >= until_us_) return;
  if (c.is_lost) came_back(c);
  LoadRecord& record = c.record;
  c.heard_ns = now_ns_;
  uint32_t step = 1;
  if (record.frames == 0) {
    record.first_us = time_us;
  } else if (c.is_fresh) {
    // After a reconnect, what was heard before may come again.
    if (header.timestamp != 0 && header.timestamp <= c.last_timestamp) {
      ++record.repeated;
      return;
    }
  } else if (header.first == c.stream_number) {
    step = header.sequence - c.last_sequence;
    if (static_cast<int32_t>(step) <= 0) {
      ++record.repeated;
      return;
    }
    if (step > 1) {
      ++record.gaps;
      ++figures_.gaps;
      figures_.missing += step - 1;
    }
  }
  c.is_fresh = false;
  c.stream_number = header.first;
  c.last_sequence = header.sequence;
  c.last_timestamp = header.timestamp;
  record.last_us = time_us;
  record.expected += step;
  ++record.frames;
  ++figures_.frames;
  if (!clock_known_ || time_us < c.live_from_us) return;
  const int64_t since_ns = (clock_offset_us_ - time_us) * 1000;
  figures_.delay[record.group].add((now_ns_ + since_ns) / 1000);
  if (target_.config.kernel_times) figures_.arrival.add((arrived_ns_ + since_ns) / 1000);
}

void LoadThread::came_back(LoadConnection& c) {
  c.is_lost = false;
  ++c.record.returns;
  ++figures_.returned;
  figures_.last_back_ns = now_ns_;
  if (c.heard_ns != 0) figures_.silence.add((now_ns_ - c.heard_ns) / 1000);
}

void LoadThread::on_control(LoadConnection& c, WsOpcode opcode, std::string_view payload) {
  if (opcode == WsOpcode::ping) {
    ++figures_.pings;
    transmit(c, ws_client_header(WsOpcode::pong, payload.size()), payload);
  } else if (opcode == WsOpcode::close) {
    const auto byte = [&](size_t i) { return static_cast<unsigned>(static_cast<uint8_t>(payload[i])); };
    const unsigned code = payload.size() >= 2 ? byte(0) << 8 | byte(1) : 1005;
    if (code == 4401) c.asks = !c.is_source && !parts_[c.number].listeners->asks.empty();
    std::string what = "closed with " + std::to_string(code);
    if (payload.size() > 2) what.append(" ").append(payload.substr(2));
    on_error(c, what);
  }
}

void LoadThread::on_error(LoadConnection& c, std::string_view what) {
  if (!c.alive()) return;
  note_error(what);
  lose(c);
}

void LoadThread::note_error(std::string_view what) {
  const auto found = figures_.errors.find(std::string(what));
  if (found != figures_.errors.end())
    ++found->second;
  else if (figures_.errors.size() < kMaxErrors)
    figures_.errors.emplace(what, 1);
  else
    ++figures_.errors["others"];
}

void LoadThread::lose(LoadConnection& c) {
  const bool was_joined = c.state == LoadConnection::State::joined;
  c.state = LoadConnection::State::dead;
  c.record.state = LoadRecord::dead;
  c.asked_ns.clear();
  c.stream.close();
  --figures_.alive;
  if (was_joined) {
    --figures_.joined;
    ++figures_.lost;
  } else {
    --entering_;
  }
  const int64_t now = monotonic_ns();
  if (c.record.joined_ns == 0) {
    ++figures_.settled;
    ++figures_.failed;
    return;
  }
  if (!c.is_lost) {
    c.is_lost = true;
    ++c.record.losses;
    if (figures_.first_lost_ns == 0) figures_.first_lost_ns = now;
  }
  if (rejoin_ && c.returns()) retries_.push_back({now + target_.config.retry_ns, &c});
}

}  // namespace relaycore
