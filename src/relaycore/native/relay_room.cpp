// Rooms: the home's clock on one side, the listeners' views on the other.
#include "relay_room.h"

#include <algorithm>
#include <cstring>

#include "relay_thread.h"

namespace relaycore {
namespace {

constexpr unsigned kTurnMs = 160;  // about half of what the channel rings hold
constexpr int64_t kLateUs = 100'000;           // a block that is later than that has waited for a thread
constexpr int64_t kCatchUpNs = 1'000'000'000;  // and so long it may take to make up for that

}  // namespace

// ---- blocks on their way to another thread ----

void BlockPost::run(RelayThread& thread) {
  // The reference is dropped in dispose(); the view takes one of its own.
  if (RoomView* view = thread.find_view(room)) {
    block->retain();
    view->accept(Ref<Block>::adopt(block));
  }
}

void BlockPost::dispose() noexcept {
  // The post is a part of the block: nothing of either may be touched after the drop.
  Block* mine = block;
  if (mine->drop()) Block::destroy(mine);
}

// ---- home ----

void Room::begin_stream(SourceSession session) {
  end_stream();
  session_ = std::make_unique<SourceSession>(std::move(session));
  was_live_ = finishing_ = drained_ = false;
  uint64_t unix_seconds = static_cast<uint64_t>(thread_.shared.clock_us(thread_.now_ns)) / 1'000'000;
  origin_ = std::max(timeline_end_, unix_seconds * 131'072);
  next_report_ns_ = thread_.now_ns + 1'000'000'000;
  thread_.schedule_tick(*this, thread_.now_ns);
}

void Room::finish_stream(const SourceLink* link, bool drained) {
  if (!session_ || session_->link.get() != link || finishing_) return;
  finishing_ = true;
  drained_ = drained;
  if (drain_rings()) session_->jitter->finish();
  if (session_->jitter->ended()) end_stream();
}

void Room::end_stream() {
  if (!session_) return;
  // relaxed: see SourceLink::cut.
  session_->link->cut.store(true, std::memory_order_relaxed);
  // Its source may be waiting for space in rings that nobody drains any more.
  uint64_t source = session_->link->connection;
  thread_.shared.threads[thread_of(source)]->call(
      [source](RelayThread& t) { t.resume_reading(source); });
  timeline_end_ = std::max(timeline_end_, origin_ + session_->jitter->end_timestamp());
  tell_pause();
  post_stream_event(EventKind::stream_ended, drained_);
  session_.reset();
}

bool Room::drain_rings() {
  if (!session_) return true;
  SourceLink& link = *session_->link;
  bool all = true;
  for (unsigned c = 0; c < link.format.channels; ++c)
    all &= session_->jitter->drain(c, link.ring(c), thread_.now_ns);
  // acq_rel: see SourceLink::writer_waits.
  source_waited_ = link.writer_waits.exchange(false, std::memory_order_acq_rel);
  if (source_waited_) {
    uint64_t source = link.connection;
    RelayThread& reader = *thread_.shared.threads[thread_of(source)];
    reader.call([source](RelayThread& t) { t.resume_reading(source); });
  }
  return all;
}

int64_t Room::tick(int64_t now_ns) {
  if (!session_) return 0;
  JitterBuffer& jitter = *session_->jitter;
  // A stalled thread has several frames to catch up with. The bound lets the others have their turn;
  // and the source, once it has room in its rings again: what it sent in time is to be read in time.
  bool source_has_room = false;
  for (unsigned ms = 0; ms < kTurnMs && !source_has_room; ms += session_->info->frame_ms) {
    int64_t deadline = jitter.next_deadline_ns();
    if (deadline > now_ns) break;
    const bool all = drain_rings();
    source_has_room = all && source_waited_;
    if (all && finishing_) jitter.finish();
    if (jitter.ended()) {
      end_stream();
      return 0;
    }
    Block* block = spare_block();
    float* planes[kMaxChannels];
    for (unsigned c = 0; c < session_->info->channels; ++c) planes[c] = block->plane(c);
    FrameInfo info;
    JitterBuffer::Tick outcome = jitter.tick(now_ns, planes, info);
    if (outcome == JitterBuffer::Tick::none) break;
    bool live = jitter.live();
    if (outcome == JitterBuffer::Tick::frame) {
      if (!session_->info->announce)
        session_->info->announce = Text::completed(session_->announce, origin_);
      if (!was_live_) {
        was_live_ = true;
        post_stream_event(EventKind::stream_live);
      }
      block->stream = session_->info;
      block->number = blocks_.head();
      block->index = info.index;
      block->timestamp = origin_ + info.timestamp;
      block->time_us = static_cast<uint64_t>(thread_.shared.clock_us(info.deadline_ns));
      block->concealed = info.concealed_mask;
      block->samples = info.samples;
      block->discontinuity = info.discontinuity;
      timeline_end_ = block->timestamp + block->samples;
      publish(std::move(spare_));
      thread_.counters.ticks.add(1);
      // By a clock of its own: other rooms may have had their ticks since this round began.
      auto late = static_cast<uint64_t>(std::max<int64_t>(0, monotonic_ns() - info.deadline_ns));
      thread_.counters.tick_late.add(static_cast<int64_t>(late));
      if (late > thread_.counters.tick_late_ns_max.get()) thread_.counters.tick_late_ns_max.set(late);
      counters_->blocks.add(1);
    }
    if (!live && was_live_ && !jitter.ended()) {
      was_live_ = false;
      tell_pause();
      post_stream_event(EventKind::stream_buffering);
    }
    if (jitter.ended()) {
      end_stream();
      return 0;
    }
  }
  if (now_ns >= next_report_ns_) report(now_ns);
  return jitter.next_deadline_ns();
}

// The block that the next frame is written into: the oldest one kept, if nobody else holds it.
Block* Room::spare_block() {
  unsigned channels = session_->info->channels;
  unsigned samples = session_->jitter->max_frame_samples();
  if (spare_ && spare_->fits(channels, samples)) return spare_.get();
  spare_ = {};
  if (blocks_.is_full_for(*session_->info)) {
    spare_ = blocks_.take_oldest();
    if (!spare_->unique() || !spare_->fits(channels, samples)) spare_ = {};
  }
  if (!spare_)
    spare_ = Block::create(channels, samples, static_cast<unsigned>(thread_.shared.threads.size()));
  return spare_.get();
}

void Room::publish(Ref<Block> block) {
  for (uint64_t left = subscribers_; left; left &= left - 1) {
    unsigned thread = static_cast<unsigned>(std::countr_zero(left));
    if (thread == thread_.index) {
      if (RoomView* view = thread_.find_view(id)) view->accept(block);
    } else {
      BlockPost& post = block->posts[thread];
      post.block = block.get();
      post.room = id;
      block->retain();
      thread_.shared.threads[thread]->post(&post);
    }
  }
  blocks_.append(std::move(block));
}

void Room::subscribe(unsigned thread) {
  subscribers_ |= uint64_t{1} << thread;
  if (thread == thread_.index) {
    if (RoomView* view = thread_.find_view(id)) view->accept_past(blocks_);
    return;
  }
  std::vector<Ref<Block>> past;
  for (uint64_t n = blocks_.oldest(); n != blocks_.head(); ++n) past.push_back(blocks_[n]);
  thread_.shared.threads[thread]->call(
      [room = id, head = blocks_.head(), past = std::move(past)](RelayThread& t) mutable {
        BlockRing ring;
        ring.begin_at(head - past.size());
        for (Ref<Block>& block : past) ring.append(std::move(block));
        if (RoomView* view = t.find_view(room)) view->accept_past(ring);
      });
}

// Audio that is older than what a room keeps is nobody's past any more.
void Room::forget_past(int64_t now_ns) {
  if (blocks_.is_older_than(kRetainMs, thread_.shared.clock_us(now_ns))) {
    blocks_.clear();
    spare_ = {};
  }
}

void Room::tell_pause() {
  for (uint64_t left = subscribers_; left; left &= left - 1) {
    unsigned thread = static_cast<unsigned>(std::countr_zero(left));
    thread_.shared.threads[thread]->call([room = id](RelayThread& t) {
      if (RoomView* view = t.find_view(room)) view->flush();
    });
  }
}

void Room::post_stream_event(EventKind kind, bool drained) {
  auto* event = new StreamEvent(kind, id);
  event->stream = session_->info->stream;
  event->timestamp = origin_;
  event->drained = drained;
  thread_.shared.post_event(event);
}

void Room::report(int64_t now_ns) {
  next_report_ns_ += 1'000'000'000;
  if (next_report_ns_ <= now_ns) next_report_ns_ = now_ns + 1'000'000'000;
  const JitterBuffer& jitter = *session_->jitter;
  SourceLink& link = *session_->link;
  // A control plane that does not listen finds one report when it does, not a day's.
  // acquire: see SourceLink::report_waits. Nothing is handed over by setting it: the event goes
  // through its queue.
  if (link.report_waits.exchange(true, std::memory_order_acquire)) return;
  auto* event = new SourceReportEvent(EventKind::source_report, id);
  event->link = session_->link;
  event->connection = link.connection;
  event->stream = session_->info->stream;
  event->fill_ms = jitter.fill_ms();
  event->target_ms = jitter.target_ms();
  event->jitter_ms = jitter.jitter_ms();
  event->drift_ppm = jitter.drift_ppm();
  // acquire: see SourceLink::has_capture_offset.
  event->has_capture_offset = link.has_capture_offset.load(std::memory_order_acquire);
  // relaxed: the same.
  event->capture_offset_us = link.capture_offset_us.load(std::memory_order_relaxed);
  for (unsigned c = 0; c < link.format.channels; ++c) event->channels.push_back(jitter.counters(c));
  thread_.shared.post_event(event);
}

// ---- views ----

void RoomView::add(Connection& connection, JoinPoint join) {
  connection.view = this;
  connection.view_slot = static_cast<uint32_t>(listeners.size());
  listeners.push_back(&connection);
  counters->listeners.add_shared(1);
  connection.join_pending = !synced;
  if (synced) place(connection, join);
  else joins_.push_back(join);
}

void RoomView::remove(Connection& connection) {
  Connection* last = listeners.back();
  listeners[connection.view_slot] = last;
  last->view_slot = connection.view_slot;
  listeners.pop_back();
  if (!synced) {
    joins_[connection.view_slot] = joins_.back();
    joins_.pop_back();
  }
  connection.view = nullptr;
  counters->listeners.add_shared(~uint64_t{0});
  // Whoever took the place might be passed over in the round that is under way: begin it anew.
  if (visits_due) visits_due = listeners.size();
}

Layout* RoomView::acquire_layout(const LayoutKey& key) {
  uint64_t hash = key.hash();
  auto [begin, end] = layouts.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (it->second->key() == key) {
      ++it->second->refs;
      return it->second.get();
    }
  }
  auto it = layouts.emplace(hash, std::make_unique<Layout>(key, hash));
  it->second->refs = 1;
  return it->second.get();
}

void RoomView::release_layout(Layout* layout) {
  if (--layout->refs) return;
  auto [begin, end] = layouts.equal_range(layout->hash());
  for (auto it = begin; it != end; ++it) {
    if (it->second.get() == layout) {
      layouts.erase(it);
      return;
    }
  }
}

void RoomView::accept(Ref<Block> block) {
  if (!synced || block->number < blocks.head()) return;
  int64_t now_ns = monotonic_ns();
  bool is_late = thread_.shared.clock_us(now_ns) - static_cast<int64_t>(block->time_us) > kLateUs;
  // The first of them: all that a thread makes are late when it has too much to do.
  if (is_late && !last_was_late_) came_late_ns = now_ns;
  last_was_late_ = is_late;
  blocks.append(std::move(block));
  live = true;
  schedule_pass();
}

void RoomView::begin_round() noexcept {
  pass_position = 0;
  outpaced = cut_short && (outpaced || thread_.now_ns - came_late_ns > kCatchUpNs);
  cut_short = false;
}

void RoomView::accept_past(const BlockRing& past) {
  if (synced) {  // asked for twice: what came meanwhile is there already
    for (uint64_t n = past.oldest(); n != past.head(); ++n) accept(past[n]);
    return;
  }
  blocks.begin_at(past.oldest());
  for (uint64_t n = past.oldest(); n != past.head(); ++n) blocks.append(past[n]);
  synced = true;
  for (size_t i = 0; i < listeners.size(); ++i) {
    listeners[i]->join_pending = false;
    place(*listeners[i], joins_[i]);
  }
  joins_ = {};
}

void RoomView::place(Connection& connection, JoinPoint join) {
  uint64_t cursor = blocks.head();
  if (join.from) {
    // The block that the timestamp lies in, or what is left of the past.
    auto ends = [](const Block& block) { return block.timestamp + block.samples; };
    while (cursor > blocks.oldest() && ends(*blocks[cursor - 1]) > join.from) --cursor;
  } else if (join.burst_ms) {
    // Recent by the clock, too: of a room that fell silent long ago nothing is.
    auto now_us = static_cast<uint64_t>(thread_.shared.clock_us(thread_.now_ns));
    uint32_t ms = 0;
    while (cursor > blocks.oldest()) {
      const Block& block = *blocks[cursor - 1];
      ms += block.stream->frame_ms;
      uint64_t age_limit_us = (join.burst_ms + 2 * block.stream->frame_ms) * 1000;
      if (ms > join.burst_ms || block.time_us + age_limit_us < now_us) break;
      --cursor;
    }
  }
  connection.cursor = cursor;
  connection.catching_up = cursor != blocks.head();
  // A burst takes its time on the wire and says nothing of the listener's lag.
  connection.measures_lag = !connection.catching_up;
  if (connection.catching_up) {
    connection.next_ping_ns = thread_.now_ns;
    thread_.make_ready(connection);
  }
}

void RoomView::flush() {
  live = false;
  flush_before = blocks.head();
  schedule_pass();
}

void RoomView::forget_past(int64_t now_ns) {
  if (!blocks.is_older_than(kRetainMs, thread_.shared.clock_us(now_ns))) return;
  blocks.clear();
  levels_.reset();
  for (auto& [hash, layout] : layouts) layout->forget_frames();
}

void RoomView::schedule_pass() {
  visits_due = listeners.size();
  if (visits_due) thread_.schedule_pass(*this);
}

FrameRef RoomView::levels_after(uint64_t number) {
  if (number < blocks.oldest() || number >= blocks.head()) return {};
  const Block& last = *blocks[number];
  if (!levels_end_with(last)) return {};
  unsigned period = last.stream->level_period();
  uint64_t first = number + 1 - period;
  if (number + 1 < period || first < blocks.oldest()) return {};
  if (blocks[first]->stream.get() != last.stream.get()) return {};
  if (!levels_) levels_ = std::make_unique<FrameCache>(16);
  bool fresh;
  FrameRef& frame = levels_->slot(number, levels_payload_bytes(last), fresh);
  if (fresh) render_levels(blocks, first, number, *frame.get());
  return frame;
}

}  // namespace relaycore
