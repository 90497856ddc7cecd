// What the bytes of a load client's connection go through: a plain socket, or TLS over it.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace relaycore {

// OpenSSL as it is found on this machine when TLS is asked for: nothing is linked, so that the
// library stands alone. Used by many threads once it is made.
class TlsClient {
 public:
  // nullptr when there is no OpenSSL or it does not take the certificates; `why` says so.
  static std::unique_ptr<TlsClient> create(bool verify, const std::string& ca_file,
                                           const std::string& server_name, std::string& why);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  void* open(int fd) const noexcept;  // nullptr: no memory
  void close(void* tls) const noexcept;
  // As the Stream's calls; with EPROTO `what_failed` of this connection says more.
  int handshake(void* tls) const noexcept;
  ssize_t recv(void* tls, void* data, size_t n) const noexcept;
  ssize_t send(void* tls, const void* data, size_t n) const noexcept;
  std::string what_failed(void* tls) const;

 private:
  struct Library;
  TlsClient() = default;
  ssize_t failed(void* tls, int result) const noexcept;

  std::unique_ptr<Library> library_;
  void* context_ = nullptr;
  bool verify_ = true;
  std::string server_name_;
};

// A connected socket. Calls return and fail as recv() and send() do, with errno.
class LoadStream {
 public:
  int fd() const noexcept { return fd_; }
  bool is_tls() const noexcept { return tls_ != nullptr; }

  // The socket belongs to the stream, whatever is returned.
  bool open(int fd, const TlsClient* client) noexcept {
    fd_ = fd;
    client_ = client;
    if (client == nullptr) return true;
    tls_ = client->open(fd);
    return tls_ != nullptr;
  }

  void close() noexcept {
    if (tls_ != nullptr) client_->close(std::exchange(tls_, nullptr));
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

  // 1 when the stream may be used, -1 with EAGAIN when the other side has to say something first.
  int handshake() noexcept { return tls_ == nullptr ? 1 : client_->handshake(tls_); }

  ssize_t recv(void* data, size_t n) noexcept {
    return tls_ == nullptr ? ::recv(fd_, data, n, 0) : client_->recv(tls_, data, n);
  }
  ssize_t send(const void* data, size_t n) noexcept {
    return tls_ == nullptr ? ::send(fd_, data, n, MSG_NOSIGNAL) : client_->send(tls_, data, n);
  }

  std::string what_failed() const { return tls_ == nullptr ? "" : client_->what_failed(tls_); }

 private:
  int fd_ = -1;
  void* tls_ = nullptr;
  const TlsClient* client_ = nullptr;
};

}  // namespace relaycore
