#include <dlfcn.h>

#include "load_stream.h"

namespace relaycore {

namespace {

// Of OpenSSL's headers, whose numbers do not change between 1.1 and 3.
constexpr int kVerifyNone = 0, kVerifyPeer = 1;
constexpr int kControlMode = 33, kControlReadAhead = 41, kControlHostName = 55;
constexpr long kPartialWrites = 1, kMovingBuffer = 2;
constexpr int kWantRead = 2, kWantWrite = 3, kSyscall = 5, kZeroReturn = 6;

}  // namespace

struct TlsClient::Library {
  void* handle = nullptr;
  const void* (*client_method)();
  void* (*context_new)(const void*);
  void (*context_free)(void*);
  long (*context_control)(void*, int, long, void*);
  void (*context_set_verify)(void*, int, void*);
  int (*context_default_paths)(void*);
  int (*context_load)(void*, const char*, const char*);
  void* (*make)(void*);
  void (*free)(void*);
  int (*set_fd)(void*, int);
  void (*set_connect_state)(void*);
  long (*control)(void*, int, long, void*);
  int (*set_host)(void*, const char*);
  void* (*parameters)(void*);
  int (*set_address)(void*, const char*);
  int (*do_handshake)(void*);
  int (*read)(void*, void*, int);
  int (*write)(void*, const void*, int);
  int (*error)(const void*, int);
  long (*verify_result)(const void*);
  const char* (*verify_text)(long);
  void (*clear_error)();
  const char* missing = nullptr;

  bool load() {
    for (const char* name : {"libssl.so.3", "libssl.so.1.1", "libssl.so"})
      if ((handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr) break;
    if (handle == nullptr) return false;
    find(client_method, "TLS_client_method");
    find(context_new, "SSL_CTX_new");
    find(context_free, "SSL_CTX_free");
    find(context_control, "SSL_CTX_ctrl");
    find(context_set_verify, "SSL_CTX_set_verify");
    find(context_default_paths, "SSL_CTX_set_default_verify_paths");
    find(context_load, "SSL_CTX_load_verify_locations");
    find(make, "SSL_new");
    find(free, "SSL_free");
    find(set_fd, "SSL_set_fd");
    find(set_connect_state, "SSL_set_connect_state");
    find(control, "SSL_ctrl");
    find(set_host, "SSL_set1_host");
    find(parameters, "SSL_get0_param");
    find(set_address, "X509_VERIFY_PARAM_set1_ip_asc");
    find(do_handshake, "SSL_do_handshake");
    find(read, "SSL_read");
    find(write, "SSL_write");
    find(error, "SSL_get_error");
    find(verify_result, "SSL_get_verify_result");
    find(verify_text, "X509_verify_cert_error_string");
    find(clear_error, "ERR_clear_error");
    return missing == nullptr;
  }

 private:
  template <class F>
  void find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    if (function == nullptr) missing = name;
  }
};

std::unique_ptr<TlsClient> TlsClient::create(bool verify, const std::string& ca_file,
                                             const std::string& server_name, std::string& why) {
  std::unique_ptr<TlsClient> client(new TlsClient);
  client->library_ = std::make_unique<Library>();
  Library& library = *client->library_;
  if (!library.load()) {
    why = library.missing != nullptr
              ? std::string("the OpenSSL on this machine has no ") + library.missing
              : "TLS needs OpenSSL's library (libssl.so.3), which is not on this machine";
    return nullptr;
  }
  client->verify_ = verify;
  client->server_name_ = server_name;
  client->context_ = library.context_new(library.client_method());
  if (client->context_ == nullptr) {
    why = "OpenSSL makes no TLS context";
    return nullptr;
  }
  void* const context = client->context_;
  library.context_control(context, kControlReadAhead, 1, nullptr);  // whole records by one recv()
  library.context_control(context, kControlMode, kPartialWrites | kMovingBuffer, nullptr);
  library.context_set_verify(context, verify ? kVerifyPeer : kVerifyNone, nullptr);
  if (verify) {
    const int taken = ca_file.empty()
                          ? library.context_default_paths(context)
                          : library.context_load(context, ca_file.c_str(), nullptr);
    if (taken != 1) {
      why = ca_file + ": no certificates that OpenSSL can read";
      return nullptr;
    }
  }
  return client;
}

TlsClient::~TlsClient() {
  // The library stays: it may hold functions that run when the process ends.
  if (context_ != nullptr) library_->context_free(context_);
}

void* TlsClient::open(int fd) const noexcept {
  void* const tls = library_->make(context_);
  if (tls == nullptr) return nullptr;
  const char* const name = server_name_.c_str();
  bool usable = library_->set_fd(tls, fd) == 1;
  // A name that is an address is compared as one, and is not sent.
  if (usable && library_->set_address(library_->parameters(tls), name) != 1) {
    library_->control(tls, kControlHostName, 0, const_cast<char*>(name));
    if (verify_) usable = library_->set_host(tls, name) == 1;
  }
  if (!usable) {
    library_->free(tls);
    return nullptr;
  }
  library_->set_connect_state(tls);
  return tls;
}

void TlsClient::close(void* tls) const noexcept { library_->free(tls); }

int TlsClient::handshake(void* tls) const noexcept {
  library_->clear_error();
  const int result = library_->do_handshake(tls);
  return result == 1 ? 1 : static_cast<int>(failed(tls, result));
}

ssize_t TlsClient::recv(void* tls, void* data, size_t n) const noexcept {
  library_->clear_error();
  const int result = library_->read(tls, data, static_cast<int>(n));
  return result > 0 ? result : failed(tls, result);
}

ssize_t TlsClient::send(void* tls, const void* data, size_t n) const noexcept {
  library_->clear_error();
  const int result = library_->write(tls, data, static_cast<int>(n));
  return result > 0 ? result : failed(tls, result);
}

std::string TlsClient::what_failed(void* tls) const {
  const long result = library_->verify_result(tls);
  return result == 0 ? "a breach of the TLS protocol"
                     : std::string("the certificate is not trusted: ") +
                           library_->verify_text(result);
}

// What recv() would return for this result: 0 at the end, else -1 with errno.
ssize_t TlsClient::failed(void* tls, int result) const noexcept {
  const int before = errno;
  switch (library_->error(tls, result)) {
    case kWantRead:
    case kWantWrite:
      errno = EAGAIN;
      return -1;
    case kZeroReturn:
      return 0;
    case kSyscall:
      errno = before != 0 ? before : ECONNRESET;
      return -1;
    default:
      errno = EPROTO;
      return -1;
  }
}

}  // namespace relaycore
