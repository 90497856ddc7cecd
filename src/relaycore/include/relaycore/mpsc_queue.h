// Lock-free intrusive queue, many producers and one consumer: commands into a relay thread, events
// out of it. After Dmitry Vyukov's "Intrusive MPSC node-based queue" (1024cores.net).
#pragma once

#include <atomic>

namespace relaycore {

struct QueueNode {
  std::atomic<QueueNode*> next{nullptr};
};

// A node may be pushed again as soon as pop() has returned it. Nodes belong to their users.
class MpscQueue {
 public:
  MpscQueue() noexcept : head_(&stub_), tail_(&stub_) {}
  MpscQueue(const MpscQueue&) = delete;
  MpscQueue& operator=(const MpscQueue&) = delete;

  // Any thread; wait-free.
  void push(QueueNode* node) noexcept {
    // relaxed: the node is not visible to anyone yet.
    node->next.store(nullptr, std::memory_order_relaxed);
    // release: publishes the node to the next producer, whose store to its `next` must come after
    // the one above, and to pop(), which compares. acquire: the same from the producer before.
    QueueNode* previous = head_.exchange(node, std::memory_order_acq_rel);
    // release: the consumer that sees the link sees all that was written before the push.
    previous->next.store(node, std::memory_order_release);
  }

  // The consumer's thread only. nullptr: empty, or a producer is between its two stores; it signals
  // the consumer after the push, so the node is not forgotten.
  QueueNode* pop() noexcept {
    QueueNode* tail = tail_;
    // acquire: pairs with the release in push().
    QueueNode* next = tail->next.load(std::memory_order_acquire);
    if (tail == &stub_) {
      if (!next) return nullptr;
      tail_ = tail = next;
      // acquire: the same.
      next = next->next.load(std::memory_order_acquire);
    }
    if (next) {
      tail_ = next;
      return tail;
    }
    // One node left, or a push under way: only behind the stub can the last node be taken out.
    // acquire: not needed for the node, whose link was acquired; if a stale value says that no push
    // is under way, the push below goes behind it all the same.
    if (tail != head_.load(std::memory_order_acquire)) return nullptr;
    push(&stub_);
    // acquire: pairs with the release in push(), by us or by who came between.
    next = tail->next.load(std::memory_order_acquire);
    if (!next) return nullptr;
    tail_ = next;
    return tail;
  }

 private:
  alignas(64) std::atomic<QueueNode*> head_;  // producers
  alignas(64) QueueNode* tail_;               // consumer
  QueueNode stub_;
};

}  // namespace relaycore
