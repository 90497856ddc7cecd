// Preloaded into a server: once SIGUSR2 has come, memory for objects is refused on relay threads.
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

std::atomic<bool> refuse{false};

__attribute__((constructor)) void listen() {
  std::signal(SIGUSR2, [](int) { refuse = true; });
}

bool on_relay_thread() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof name);
  return std::strncmp(name, "relay-0", sizeof name) == 0;
}

}  // namespace

void* operator new(std::size_t n) {
  if (refuse && on_relay_thread()) throw std::bad_alloc();
  if (void* memory = std::malloc(n ? n : 1)) return memory;
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
