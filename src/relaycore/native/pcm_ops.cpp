// Finds out once which tables this CPU runs, and which is in use.
#include "relaycore/pcm_ops.h"

#include <array>
#include <atomic>
#include <string_view>

#include "pcm_ops_tables.h"

namespace relaycore {
namespace {

#if defined(RELAYCORE_HAVE_AVX512)
bool has_avx512() noexcept {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

struct Available {
  std::array<const PcmOps*, 4> tables{};
  size_t count = 0;

  // Best first. The builtin also asks whether the operating system saves the wide registers.
  Available() noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#if defined(RELAYCORE_HAVE_AVX512)
    if (has_avx512()) tables[count++] = &kPcmOpsAvx512;
#endif
#if defined(RELAYCORE_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2")) tables[count++] = &kPcmOpsAvx2;
#endif
#if defined(RELAYCORE_HAVE_SSE2)
    tables[count++] = &kPcmOpsSse2;
#endif
#if defined(RELAYCORE_HAVE_NEON)
    tables[count++] = &kPcmOpsNeon;
#endif
    tables[count++] = &kPcmOpsScalar;
  }
};

const Available& available() noexcept {
  static const Available found;
  return found;
}

constinit std::atomic<const PcmOps*> in_use{nullptr};

}  // namespace

const PcmOps& pcm_ops() noexcept {
  // relaxed: tables are constants of the program; whoever sees the pointer sees the table.
  const PcmOps* ops = in_use.load(std::memory_order_relaxed);
  if (ops) return *ops;
  const PcmOps* best = available().tables[0];
  // relaxed: the same. Who comes too late takes what a concurrent force_pcm_ops() has set.
  return in_use.compare_exchange_strong(ops, best, std::memory_order_relaxed) ? *best : *ops;
}

std::span<const PcmOps* const> pcm_ops_available() noexcept {
  return {available().tables.data(), available().count};
}

bool force_pcm_ops(const char* name) noexcept {
  for (const PcmOps* ops : pcm_ops_available()) {
    if (name && std::string_view(name) != ops->name) continue;
    in_use.store(ops, std::memory_order_relaxed);  // relaxed: see pcm_ops()
    return true;
  }
  return false;
}

}  // namespace relaycore
