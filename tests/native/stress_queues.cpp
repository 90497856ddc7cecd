// What joins the relay's threads, at full speed, for the sanitizers: records in channel rings whose
// indices are about to wrap, commands in queues, blocks passed by reference, a source that waits for
// its room, the gate before the end. Producers and consumers share a CPU, have one each, or run where
// the scheduler likes.
//
// Every part moves a fixed amount and checks all of it; none depends on how threads are scheduled.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <semaphore>
#include <thread>
#include <utility>
#include <vector>

#include "pcm_ops.cpp"
#include "pcm_ops_scalar.cpp"
#include "relaycore/gate.h"
#include "relaycore/mpsc_queue.h"
#include "relaycore/ref.h"
#include "relaycore/source_link.h"
#include "stress.h"

using namespace relaycore;
using namespace relaycore::stress;

namespace {

// As an eventfd: it counts no more than it has to. Half a minute is for a machine that is very busy.
class Bell {
 public:
  void ring() { semaphore_.release(); }
  void wait(const char* what) {
    require(semaphore_.try_acquire_for(std::chrono::seconds(30)), what);
  }

 private:
  std::counting_semaphore<> semaphore_{0};
};

// ---- channel rings ----

float sample_of(uint64_t record, size_t i) {
  return static_cast<float>((record * 31 + i) % 4096) / 4096;
}

void records_between_threads(uint64_t first_index, Placement placement) {
  constexpr uint64_t kRecords = 10'000;
  ChannelRing ring;
  require(ring.init(251, first_index), "ring");
  auto length_of = [](std::minstd_rand& random) { return 1 + random() % 120; };
  std::thread producer([&] {
    pin(placement.producer);
    std::minstd_rand random(1);
    std::array<float, 120> samples;
    std::array<int16_t, 120> pcm;
    for (uint64_t record = 0; record < kRecords; ++record) {
      const size_t n = length_of(random);
      for (size_t i = 0; i < n; ++i) {
        samples[i] = sample_of(record, i);
        pcm[i] = static_cast<int16_t>(samples[i] * 32768);
      }
      auto pushed = [&] {
        return record % 2 ? ring.push(record, -static_cast<int64_t>(record), samples.data(), n)
                          : ring.push_s16(record, -static_cast<int64_t>(record), pcm.data(), n);
      };
      while (!pushed()) std::this_thread::yield();
    }
  });
  pin(placement.consumer);
  std::minstd_rand random(1);
  for (uint64_t record = 0; record < kRecords;) {
    const uint64_t first = record;
    ring.drain([&](uint64_t timestamp, int64_t arrival_ns, const float* a, size_t a_n,
                   const float* b, size_t b_n) {
      require(timestamp == record && arrival_ns == -static_cast<int64_t>(record), "order");
      require(a_n + b_n == length_of(random), "length");
      for (size_t i = 0; i < a_n + b_n; ++i)
        require((i < a_n ? a[i] : b[i - a_n]) == sample_of(record, i), "samples");
      ++record;
      return true;
    });
    if (record == first) std::this_thread::yield();
  }
  producer.join();
}

// The way of a source and its room: who finds no space says so and looks once more, before it
// sleeps; who makes space looks whether somebody sleeps. If they could miss each other, both would
// sleep in the end.
void a_source_that_waits_is_woken(Placement placement) {
  constexpr uint64_t kPackets = 8'000;
  constexpr size_t kSamples = 700;  // of some 4000 that the ring holds
  auto link = SourceLink::create({Encoding::f32le, 1, 8000}, 1, 1, {});
  require(static_cast<bool>(link), "link");
  Bell space, packets;
  std::thread source([&] {
    pin(placement.producer);
    std::vector<float> samples(kSamples, 0.25f);
    for (uint64_t packet = 0; packet < kPackets; ++packet) {
      bool has_waited = false;
      while (!link->ring(0).push(packet, 0, samples.data(), kSamples)) {
        if (!std::exchange(has_waited, true)) {
          link->writer_waits.exchange(true, std::memory_order_acq_rel);
        } else {
          space.wait("a source that waits is woken");
          has_waited = false;
        }
      }
      packets.ring();
    }
  });
  pin(placement.consumer);
  for (uint64_t next = 0; next < kPackets;) {
    packets.wait("a source sends, or is woken");
    link->ring(0).drain([&](uint64_t timestamp, int64_t, const float*, size_t, const float*, size_t) {
      require(timestamp == next++, "order");
      return true;
    });
    if (link->writer_waits.exchange(false, std::memory_order_acq_rel)) space.ring();
  }
  source.join();
}

// ---- queues ----

// As RelayThread does it: push, and ring unless it has been rung and not yet heard.
struct Mailbox {
  MpscQueue queue;
  std::atomic<bool> signalled{false};
  Bell bell;

  void post(QueueNode* node) {
    queue.push(node);
    if (!signalled.exchange(true, std::memory_order_acq_rel)) bell.ring();
  }
  template <class F>
  void take(F&& f) {
    bell.wait("who has a message is woken");
    signalled.exchange(false, std::memory_order_acq_rel);
    while (QueueNode* node = queue.pop()) f(node);
  }
};

// Few nodes, so that each goes round many times: it is pushed again as soon as it was taken out.
void messages_between_threads(Placement placement) {
  constexpr unsigned kProducers = 3;
  constexpr uint64_t kMessages = 8'000;  // of each
  struct Message : QueueNode {
    unsigned from = 0;
    uint64_t number = 0;                // plain: the sanitizer sees who reads it too early
    std::atomic<bool> is_free{true};
  };
  Mailbox mailbox;
  std::vector<std::thread> producers;
  for (unsigned from = 0; from < kProducers; ++from) {
    producers.emplace_back([&, from] {
      pin(placement.producer);
      std::array<Message, 5> messages;
      for (uint64_t number = 0; number < kMessages; ++number) {
        Message& message = messages[number % messages.size()];
        while (!message.is_free.load(std::memory_order_acquire)) std::this_thread::yield();
        message.is_free.store(false, std::memory_order_relaxed);
        message.from = from;
        message.number = number;
        mailbox.post(&message);
      }
      for (Message& message : messages)
        while (!message.is_free.load(std::memory_order_acquire)) std::this_thread::yield();
    });
  }
  pin(placement.consumer);
  uint64_t next[kProducers] = {};
  for (uint64_t left = kProducers * kMessages; left;) {
    mailbox.take([&](QueueNode* node) {
      auto& message = *static_cast<Message*>(node);
      require(message.number == next[message.from]++, "each producer's messages in their order");
      message.is_free.store(true, std::memory_order_release);
      --left;
    });
  }
  for (std::thread& producer : producers) producer.join();
  require(mailbox.queue.pop() == nullptr, "nothing is left");
}

// As blocks go to other threads: a reference travels in a node that is a part of what it refers to,
// and once every other reference is gone the maker fills the thing anew.
void blocks_between_threads(Placement placement) {
  constexpr unsigned kReaders = 2;
  constexpr uint64_t kBlocks = 8'000;
  static std::atomic<int> alive{0};
  struct Sheet final : Shared {
    struct Post : QueueNode {
      Sheet* sheet = nullptr;
    };
    Sheet() { ++alive; }
    ~Sheet() { --alive; }
    static void destroy(Sheet* sheet) noexcept { delete sheet; }
    uint64_t numbers[16] = {};
    Post posts[kReaders];
  };
  Mailbox mailboxes[kReaders];
  std::vector<std::thread> readers;
  for (unsigned r = 0; r < kReaders; ++r) {
    readers.emplace_back([&, r] {
      pin(placement.consumer);
      Ref<Sheet> kept;  // as long as the next one, like a listener's that is half sent
      for (uint64_t number = 0; number < kBlocks;) {
        mailboxes[r].take([&](QueueNode* node) {
          kept = Ref<Sheet>::adopt(static_cast<Sheet::Post*>(node)->sheet);
          for (uint64_t x : kept->numbers) require(x == number, "what was written, whole");
          ++number;
        });
      }
    });
  }
  {
    pin(placement.producer);
    std::array<Ref<Sheet>, 8> ring;
    uint64_t reused = 0;
    for (uint64_t number = 0; number < kBlocks; ++number) {
      Ref<Sheet>& sheet = ring[number % ring.size()];
      // So that some are used again however fast or slow the readers are.
      if (number % 64 == 63)
        while (!sheet->unique()) std::this_thread::yield();
      if (sheet && sheet->unique())
        ++reused;
      else
        sheet = Ref<Sheet>::adopt(new Sheet);
      std::fill(std::begin(sheet->numbers), std::end(sheet->numbers), number);
      for (unsigned r = 0; r < kReaders; ++r) {
        sheet->retain();
        sheet->posts[r].sheet = sheet.get();
        mailboxes[r].post(&sheet->posts[r]);
      }
    }
    require(reused >= kBlocks / 64, "most are used again");
  }
  for (std::thread& reader : readers) reader.join();
  require(alive == 0, "every block is gone");
}

// ---- the gate ----

void who_is_inside_is_waited_for(Placement placement) {
  for (int round = 0; round < 500; ++round) {
    Gate gate;
    uint64_t done = 0, told = 0;  // plain: the sanitizer sees a visitor that was not waited for
    std::atomic<unsigned> shut{0};
    std::thread visitor([&] {
      pin(placement.producer);
      while (true) {
        GatePass pass(gate);
        if (!pass) break;
        ++done;
      }
      require(gate.is_shut() && !GatePass(gate), "it stays shut");
      require(told == 1, "who is turned away sees what was done before it was shut");
    });
    pin(placement.consumer);
    if (round % 2) std::this_thread::yield();
    told = 1;
    std::thread another([&] { shut += gate.shut(); });
    shut += gate.shut();
    ++done;
    visitor.join();
    another.join();
    require(shut == 1, "one of them shut it");
  }
}

}  // namespace

int main() {
  require_two_cpus();
  for (Placement placement : kPlacements) {
    for (uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - 1000, ~uint64_t{0} - 1000})
      records_between_threads(first, placement);
    a_source_that_waits_is_woken(placement);
    messages_between_threads(placement);
    blocks_between_threads(placement);
    who_is_inside_is_waited_for(placement);
  }
  std::puts("ok");
}
