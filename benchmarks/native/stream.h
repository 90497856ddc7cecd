// What the bytes of the floor's connections go through: a plain socket, or, in a program built with
// BENCH_TLS, TLS over it (OpenSSL). One set of calls, so that nothing else differs between the two.
#pragma once

#include <csignal>

#include "bench.h"

#ifdef BENCH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

namespace bench {

// A connected socket. Calls return and fail as recv() and send() do, with errno.
class Stream {
 public:
  // Once, before the first stream. With TLS it shows `--certificate` and `--key`.
  static void configure([[maybe_unused]] const Arguments& arguments) {
    std::signal(SIGPIPE, SIG_IGN);
#ifdef BENCH_TLS
    context_ = SSL_CTX_new(TLS_server_method());
    if (context_ == nullptr) tls_die("no TLS context");
    SSL_CTX_set_read_ahead(context_, 1);  // whole records by one recv()
    if (SSL_CTX_use_certificate_chain_file(context_, arguments.text("--certificate", "")) != 1 ||
        SSL_CTX_use_PrivateKey_file(context_, arguments.text("--key", ""), SSL_FILETYPE_PEM) != 1)
      tls_die("the certificate cannot be used");
#endif
  }

  int fd() const { return fd_; }

  void open(int fd) {
    fd_ = fd;
#ifdef BENCH_TLS
    tls_ = SSL_new(context_);
    if (tls_ == nullptr || SSL_set_fd(tls_, fd) != 1) tls_die("no TLS connection");
    SSL_set_accept_state(tls_);
#endif
  }

  void close() {
#ifdef BENCH_TLS
    SSL_free(tls_);
    tls_ = nullptr;
#endif
    ::close(fd_);
    fd_ = -1;
  }

  // 1 when the stream may be used, -1 with EAGAIN when the other side has to say something first.
  int handshake() {
#ifdef BENCH_TLS
    ERR_clear_error();
    const int result = SSL_do_handshake(tls_);
    return result == 1 ? 1 : static_cast<int>(failed(result));
#else
    return 1;
#endif
  }

  ssize_t recv(void* data, size_t n) {
#ifdef BENCH_TLS
    ERR_clear_error();
    const int result = SSL_read(tls_, data, static_cast<int>(n));
    return result > 0 ? result : failed(result);
#else
    return ::recv(fd_, data, n, 0);
#endif
  }

  // Whole or not at all, unless the socket is plain.
  ssize_t send(const void* data, size_t n) {
#ifdef BENCH_TLS
    ERR_clear_error();
    const int result = SSL_write(tls_, data, static_cast<int>(n));
    return result > 0 ? result : failed(result);
#else
    return ::send(fd_, data, n, MSG_NOSIGNAL);
#endif
  }

 private:
  int fd_ = -1;
#ifdef BENCH_TLS
  SSL* tls_ = nullptr;
  static inline SSL_CTX* context_ = nullptr;

  [[noreturn]] static void tls_die(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    ERR_print_errors_fp(stderr);
    std::exit(2);
  }

  // What recv() would return for this result: 0 at the end, else -1 with errno.
  ssize_t failed(int result) const {
    const int before = errno;
    switch (SSL_get_error(tls_, result)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
      case SSL_ERROR_ZERO_RETURN:
        return 0;
      case SSL_ERROR_SYSCALL:
        errno = before != 0 ? before : ECONNRESET;
        return -1;
      default:
        errno = EPROTO;
        return -1;
    }
  }
#endif
};

}  // namespace bench
