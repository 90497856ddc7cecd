// Outcome of a call into the native core. The bindings turn it into an exception in one place.
#pragma once

namespace relaycore {

enum class Status : int {
  ok = 0,
  invalid_argument,  // ValueError
  out_of_memory,     // MemoryError
  system_error,      // OSError, errno tells
  closed,            // RelayClosedError: the relay was closed
  unavailable,       // RelayUnavailableError: not built for this platform
};

}  // namespace relaycore
