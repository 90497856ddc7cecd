#include "relay_watchdog.h"

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>
#include <system_error>

#include "relay_thread.h"

namespace relaycore {
namespace {

constexpr int64_t kShortestInterval = 5'000'000;
constexpr int kLooksPerLimit = 4;  // a stall is told at most a quarter of the limit late

}  // namespace

Status RelayWatchdog::start() {
  if (shared_.config.watchdog_ns <= 0) return Status::ok;
  watched_.resize(shared_.threads.size());
  try {
    thread_ = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "relay-watchdog");
  } catch (const std::system_error& error) {
    errno = error.code().value();
    return Status::system_error;
  }
  return Status::ok;
}

void RelayWatchdog::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void RelayWatchdog::run() noexcept {
  auto interval = std::chrono::nanoseconds(
      std::max(shared_.config.watchdog_ns / kLooksPerLimit, kShortestInterval));
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval, [this] { return stopping_; })) {
    for (unsigned i = 0; i < watched_.size(); ++i) look(i, watched_[i]);
  }
}

void RelayWatchdog::look(unsigned thread, Watched& watched) noexcept {
  // The time after the thread's word, so that one that came round meanwhile is never accused.
  int64_t due = shared_.threads[thread]->due_ns();
  int64_t now = monotonic_ns();
  if (watched.due_ns && due != watched.due_ns) {
    report(thread, now - watched.due_ns, true);
    watched.due_ns = 0;
  }
  if (!watched.due_ns && due < now && now - due > shared_.config.watchdog_ns) {
    watched.due_ns = due;
    shared_.threads[thread]->counters.stalls.add(1);
    report(thread, now - due, false);
  }
}

void RelayWatchdog::report(unsigned thread, int64_t late_ns, bool over) noexcept {
  auto* event = new (std::nothrow) ThreadStallEvent(EventKind::thread_stall, thread);
  if (!event) return;  // the counter knows
  event->late_ms = static_cast<double>(late_ns) / 1e6;
  event->over = over;
  shared_.post_event(event);
}

}  // namespace relaycore
