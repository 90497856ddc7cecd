#include "relaycore/load_client.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <cstring>
#include <new>
#include <stdexcept>

#include "load_thread.h"

namespace relaycore {

namespace {

// Numeric; IPv6 may have a zone behind a %.
bool parse_address(const std::string& text, uint16_t port, LoadAddress& out) {
  sockaddr_in v4{};
  if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&out.storage, &v4, out.size = sizeof v4);
    return true;
  }
  sockaddr_in6 v6{};
  const size_t zone = text.find('%');
  if (inet_pton(AF_INET6, text.substr(0, zone).c_str(), &v6.sin6_addr) != 1) return false;
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (zone != text.npos) v6.sin6_scope_id = if_nametoindex(text.c_str() + zone + 1);
  std::memcpy(&out.storage, &v6, out.size = sizeof v6);
  return true;
}

}  // namespace

struct LoadClient::Impl {
  LoadTarget target;
  std::vector<std::unique_ptr<LoadThread>> threads;  // the last one has the sources
  std::mutex mutex;  // over what follows: listeners are added by one at a time
  size_t added = 0;

  size_t count() const noexcept { return threads.size() - 1; }
  LoadThread& source_thread() noexcept { return *threads.back(); }

  // `visit` is called on the thread of each listener, with the thread, the listener's number in it
  // and its place in the list.
  template <class Visit>
  void each(const std::vector<uint32_t>& listeners, Visit visit) {
    for (size_t t = 0; t < count(); ++t) {
      LoadThread& thread = *threads[t];
      thread.call([&] {
        for (size_t i = 0; i < listeners.size(); ++i)
          if (listeners[i] % count() == t && listeners[i] / count() < thread.connections().size())
            visit(thread, listeners[i] / count(), i);
      });
    }
  }
};

LoadClient::LoadClient(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
LoadClient::~LoadClient() = default;

Status LoadClient::start(const LoadConfig& config, std::unique_ptr<LoadClient>& client,
                         std::string& why) noexcept {
  try {
    auto impl = std::make_unique<Impl>();
    LoadTarget& target = impl->target;
    target.config = config;
    if (!parse_address(config.host, config.port, target.address)) {
      why = config.host + " is no numeric address";
      return Status::invalid_argument;
    }
    for (const std::string& text : config.bind) {
      if (!parse_address(text, 0, target.bind.emplace_back()) ||
          target.bind.back().storage.ss_family != target.address.storage.ss_family) {
        why = text + " is no address of the server's kind to connect from";
        return Status::invalid_argument;
      }
    }
    if (config.stream && (config.registers || config.clock != LoadClock::given)) {
      why = "over a stream nothing is said: it has no registration, and its clock has to be given";
      return Status::invalid_argument;
    }
    if (config.tls) {
      target.tls = TlsClient::create(config.verify, config.ca_file, config.server_name, why);
      if (target.tls == nullptr) return Status::invalid_argument;
    }
    target.request = "GET " + config.path + " HTTP/1.1\r\nHost: " + config.authority + "\r\n";
    if (!config.stream)
      target.request += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " +
                        std::string(kLoadKey) + "\r\nSec-WebSocket-Version: 13\r\n";
    target.request += "\r\n";
    for (unsigned i = 0; i <= config.threads; ++i) {
      auto& thread = impl->threads.emplace_back(
          std::make_unique<LoadThread>(target, i, i < config.threads ? config.threads : 0));
      if (!thread->open()) {
        why = std::strerror(errno);
        return Status::system_error;
      }
    }
    for (auto& thread : impl->threads) thread->start();
    client.reset(new LoadClient(std::move(impl)));
    return Status::ok;
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  } catch (const std::system_error& error) {
    errno = error.code().value();
    return Status::system_error;
  }
}

void LoadClient::add_listeners(LoadListeners listeners) {
  const std::lock_guard lock(impl_->mutex);
  const auto shared = std::make_shared<const LoadListeners>(std::move(listeners));
  const size_t first = impl_->added;
  impl_->added += shared->count;
  for (size_t t = 0; t < impl_->count(); ++t) {
    LoadThread& thread = *impl_->threads[t];
    thread.call([&] { thread.add_listeners(shared, first); });
  }
}

void LoadClient::add_sources(LoadSources sources) {
  const auto shared = std::make_shared<const LoadSources>(std::move(sources));
  LoadThread& thread = impl_->source_thread();
  thread.call([&] { thread.add_sources(shared); });
}

void LoadClient::stop_sources() {
  LoadThread& thread = impl_->source_thread();
  thread.call([&] { thread.stop_sources(); });
}

void LoadClient::limit(const std::vector<uint32_t>& listeners, int64_t bytes_per_s) {
  impl_->each(listeners, [=](LoadThread& thread, size_t local, size_t) {
    thread.limit(local, bytes_per_s);
  });
}

void LoadClient::drop(const std::vector<uint32_t>& listeners) {
  impl_->each(listeners, [](LoadThread& thread, size_t local, size_t) { thread.drop(local); });
}

void LoadClient::send(const std::vector<uint32_t>& listeners,
                      const std::vector<std::string>& texts) {
  impl_->each(listeners, [&](LoadThread& thread, size_t local, size_t i) {
    thread.send_text(local, texts[i % texts.size()]);
  });
}

void LoadClient::rejoin(bool on) {
  for (auto& thread : impl_->threads) thread->call([&] { thread->rejoin(on); });
}

void LoadClient::count_until(int64_t server_us) {
  for (auto& thread : impl_->threads) thread->call([&] { thread->count_until(server_us); });
}

std::vector<LoadFigures> LoadClient::figures(bool restart) {
  std::vector<LoadFigures> out;
  for (auto& thread : impl_->threads)
    thread->call([&] { out.push_back(thread->figures(restart)); });
  return out;
}

std::vector<LoadRecord> LoadClient::listeners() {
  std::vector<LoadRecord> out;
  const std::lock_guard lock(impl_->mutex);
  out.resize(impl_->added);
  for (size_t t = 0; t < impl_->count(); ++t) {
    LoadThread& thread = *impl_->threads[t];
    thread.call([&] {
      size_t at = t;
      for (const LoadConnection& c : thread.connections()) {
        out[at] = c.record;
        at += impl_->count();
      }
    });
  }
  return out;
}

std::vector<LoadRecord> LoadClient::sources() {
  std::vector<LoadRecord> out;
  LoadThread& thread = impl_->source_thread();
  thread.call([&] {
    for (const LoadConnection& c : thread.connections()) out.push_back(c.record);
  });
  return out;
}

}  // namespace relaycore
