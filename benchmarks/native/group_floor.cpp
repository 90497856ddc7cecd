// The floor of a ramp: as many listeners as come, each of which is sent all that it has not had by one
// sendmsg(), one after another, round and round. Frames group when a round takes longer than a tick,
// as in the relay; but nothing is received, pinged, read, counted or given up.
//
//   group_floor --message 3872 --tick-us 20000 --max-seconds 600
//
// It says {"event":"listening",...} and ends with standard input, or when the time is up. A connection
// that is more frames behind than there are, or breaks, is closed.
#include <sys/uio.h>

#include <array>

#include "floor.h"

namespace {

using namespace bench;

constexpr size_t kKept = 64;           // frames, more than a second of them
constexpr int kSendsBetweenLooks = 16;  // as the relay, which looks after what else is due

struct Listener {
  Stream stream;
  uint64_t cursor;    // the frame that it is due
  size_t offset = 0;  // what of it has gone
};

class Fanout {
 public:
  explicit Fanout(size_t length) : frames_(kKept, Message(length)) {}

  void add(const Stream& stream) { listeners_.push_back({stream, head_}); }

  // A new frame, which makes a round due; one that is under way goes on as long again.
  void tick(int64_t clock_ns) {
    frames_[head_ % kKept].stamp(static_cast<uint32_t>(head_), clock_ns);
    ++head_;
    visits_ = listeners_.size();
  }

  bool idle() const { return visits_ == 0; }

  void send_some() {
    for (int sends = 0; visits_ && sends < kSendsBetweenLooks; --visits_) {
      if (position_ >= listeners_.size()) position_ = 0;
      Listener& listener = listeners_[position_++];
      if (listener.stream.fd() < 0 || listener.cursor == head_) continue;
      if (!send_due(listener)) listener.stream.close();
      ++sends;
    }
  }

 private:
  std::vector<Message> frames_;
  std::vector<Listener> listeners_;
  uint64_t head_ = 0;
  size_t visits_ = 0, position_ = 0;

  bool send_due(Listener& listener) {
    // The oldest may be stamped anew while a part of it is still to go.
    if (head_ - listener.cursor >= kKept) return false;
    std::array<iovec, kKept> parts;
    size_t count = 0, offset = listener.offset;
    for (uint64_t number = listener.cursor; number < head_; ++number, offset = 0) {
      const std::vector<uint8_t>& bytes = frames_[number % kKept].bytes();
      parts[count++] = {const_cast<uint8_t*>(bytes.data()) + offset, bytes.size() - offset};
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = sendmsg(listener.stream.fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    const size_t length = frames_.front().bytes().size();
    const size_t gone = listener.offset + static_cast<size_t>(sent);
    listener.cursor += gone / length;
    listener.offset = gone % length;
    return true;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  const auto length = static_cast<size_t>(arguments.number("--message", 3872));
  const int64_t tick_ns = arguments.number("--tick-us", 20'000) * 1000;
  const int64_t end = monotonic_ns() + arguments.number("--max-seconds", 60) * 1'000'000'000;
  errno = 0;
  if (length < kFrameHeader) die("a message has 32 bytes at least");
  raise_descriptor_limit();
  const int64_t clock_offset = clock_ns(CLOCK_REALTIME) - monotonic_ns();
  const int listener = listen_and_say(clock_offset);
  Stream::configure(arguments);
  use_realtime_scheduling();

  Fanout fanout(length);
  int64_t deadline = monotonic_ns();
  for (int64_t now = deadline; now < end; now = monotonic_ns()) {
    for (; deadline <= now; deadline += tick_ns) fanout.tick(deadline + clock_offset);
    pollfd waits[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    const timespec rest{0, fanout.idle() ? deadline - now : 0};
    if (ppoll(waits, 2, &rest, nullptr) < 0 && errno != EINTR) die("ppoll");
    if (waits[1].revents) break;
    if (Stream stream; waits[0].revents && take(listener, stream)) fanout.add(stream);
    fanout.send_some();
  }
  return 0;
}
