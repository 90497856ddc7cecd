// Where there is no epoll there is no load client: start() says so, and nothing else is called.
#include "relaycore/load_client.h"

namespace relaycore {

struct LoadClient::Impl {};

LoadClient::LoadClient(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
LoadClient::~LoadClient() = default;

Status LoadClient::start(const LoadConfig&, std::unique_ptr<LoadClient>&, std::string&) noexcept {
  return Status::unavailable;
}
void LoadClient::add_listeners(LoadListeners) {}
void LoadClient::add_sources(LoadSources) {}
void LoadClient::stop_sources() {}
void LoadClient::limit(const std::vector<uint32_t>&, int64_t) {}
void LoadClient::drop(const std::vector<uint32_t>&) {}
void LoadClient::send(const std::vector<uint32_t>&, const std::vector<std::string>&) {}
void LoadClient::rejoin(bool) {}
void LoadClient::count_until(int64_t) {}
std::vector<LoadFigures> LoadClient::figures(bool) { return {}; }
std::vector<LoadRecord> LoadClient::listeners() { return {}; }
std::vector<LoadRecord> LoadClient::sources() { return {}; }

}  // namespace relaycore
