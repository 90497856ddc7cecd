// The floor of pacing: a thread that is woken by a timer, as often as a relay's thread has ticks and
// under the same scheduling, and does nothing but note how late it is. What the kernel itself gives.
//
//   wake_floor --tick-us 10000 --realtime 1 --max-seconds 60
//
// It says {"event":"waking",...}, and for each line on standard input {"event":"woken",...} with the
// lateness of all deadlines since the line before; the end of input, or of the time, ends it.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include <string>

#include "bench.h"
#include "relaycore/histogram.h"

namespace {

using namespace bench;

// What a relay's thread asks for; says what it got.
const char* schedule(bool realtime) {
  prctl(PR_SET_TIMERSLACK, 1UL);
  sched_param priority{};
  priority.sched_priority = 10;
  if (realtime && pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0) return "fifo";
  struct {
    uint32_t size = 48, policy = SCHED_OTHER;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 100'000, deadline = 0, period = 0;
  } attributes;
  return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0 ? "slice" : "plain";
}

// Pairs of a bound in microseconds and how many were under it, but not under the bound before.
std::string ranges_json(const relaycore::Histogram& histogram) {
  std::string out;
  for (const auto& [bound_us, count] : histogram.ranges())
    out += (out.empty() ? "[" : ",[") + std::to_string(bound_us) + "," + std::to_string(count) + "]";
  return "[" + out + "]";
}

void arm(int timer, int64_t at_ns) {
  itimerspec when{};
  when.it_value.tv_sec = at_ns / 1'000'000'000;
  when.it_value.tv_nsec = at_ns % 1'000'000'000;
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  const int64_t period = arguments.number("--tick-us", 20'000) * 1000;
  const int64_t end = monotonic_ns() + arguments.number("--max-seconds", 60) * 1'000'000'000;
  errno = 0;
  if (period <= 0) die("a period is longer than nothing");
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  for (const int fd : {timer, STDIN_FILENO}) {
    epoll_event event{EPOLLIN | (fd == timer ? EPOLLET : 0u), {.fd = fd}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
  }
  say(R"({"event":"waking","scheduling":"%s"})", schedule(arguments.number("--realtime", 1) != 0));

  relaycore::Histogram late;
  for (int64_t deadline = monotonic_ns() + period; deadline < end;) {
    arm(timer, deadline);
    epoll_event events[2];
    const int n = epoll_wait(epoll, events, 2, -1);
    for (int64_t now = monotonic_ns(); deadline <= now; deadline += period)
      late.add((now - deadline) / 1000);
    for (int i = 0; i < n; ++i) {
      if (events[i].data.fd != STDIN_FILENO) continue;
      char line[64];
      if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
      say(R"({"event":"woken","late_us":%s})", ranges_json(late).c_str());
      late.clear();
    }
  }
  return 0;
}
