// A command for a relay thread: run there once, in the order of posting.
#pragma once

#include <utility>

#include "relaycore/live_objects.h"
#include "relaycore/mpsc_queue.h"

namespace relaycore {

class RelayThread;

struct Task : QueueNode, Counted<"Task"> {
  virtual void run(RelayThread& thread) = 0;
  // After run(), or instead of it when the thread has ended.
  virtual void dispose() noexcept { delete this; }
  virtual ~Task() = default;
};

template <class F>
struct FunctionTask final : Task {
  explicit FunctionTask(F&& f) : function(std::move(f)) {}
  void run(RelayThread& thread) override { function(thread); }
  F function;
};

}  // namespace relaycore
