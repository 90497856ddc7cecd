// Where there is no epoll there is no relay: every verb says so. The library part works.
#include "relaycore/relay.h"

namespace relaycore {

struct Relay::Impl {};

Relay::Relay(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Relay::~Relay() = default;

Status Relay::start(const RelayConfig&, std::unique_ptr<Relay>&) noexcept {
  return Status::unavailable;
}
int Relay::event_fd() const noexcept { return -1; }
Status Relay::poll(size_t, std::vector<Event*>&) noexcept { return Status::unavailable; }
Status Relay::attach(int, std::string_view, std::string_view, bool, uint64_t&) noexcept {
  return Status::unavailable;
}
Status Relay::open_room(uint64_t&) noexcept { return Status::unavailable; }
Status Relay::close_room(uint64_t, std::string_view, uint16_t) noexcept {
  return Status::unavailable;
}
Status Relay::bind_source(const SourceBinding&, std::string_view) noexcept {
  return Status::unavailable;
}
Status Relay::unbind_source(uint64_t) noexcept { return Status::unavailable; }
Status Relay::bind_listener(uint64_t, uint64_t, const Subscription&, std::string_view, uint16_t,
                            uint32_t, uint64_t) noexcept {
  return Status::unavailable;
}
Status Relay::subscribe(uint64_t, const Subscription&, std::string_view) noexcept {
  return Status::unavailable;
}
Status Relay::send(uint64_t, std::string_view, bool, bool) noexcept { return Status::unavailable; }
Status Relay::send_room(uint64_t, std::string_view) noexcept { return Status::unavailable; }
Status Relay::report_lag(uint64_t, int64_t) noexcept { return Status::unavailable; }
Status Relay::close_connection(uint64_t, uint16_t, std::string_view, std::string_view) noexcept {
  return Status::unavailable;
}
Status Relay::inspect(uint64_t) noexcept { return Status::unavailable; }
int64_t Relay::clock_us() const noexcept { return 0; }
std::vector<ThreadFigures> Relay::thread_figures() const { return {}; }
std::vector<RoomFigures> Relay::room_figures() const { return {}; }
void Relay::close(std::string_view, int64_t) noexcept {}

}  // namespace relaycore
