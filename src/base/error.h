// The one exception of the core. Setting up throws it; moving bytes never does.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>

#include "base/text.h"

namespace rdma_kv {

// What kind of thing went wrong. bindings/errors_py.cc alone maps these to Python exceptions.
enum class Errc {
  kValue,           // ValueError: a bad argument, nothing has moved
  kType,            // TypeError
  kConfig,          // ConfigError
  kRegistration,    // RegistrationError
  kHandshake,       // HandshakeError
  kLayoutMismatch,  // LayoutMismatch
  kAuthentication,  // AuthenticationError
  kUnavailable,     // TransportUnavailable: this transport cannot run here, the message says why
  kTransfer,        // TransferError
  kPeerLost,        // PeerLost
  kTimeout,         // TransferTimeout
  kCancelled,       // TransferCancelled
  kRevoked,         // TransferRevoked: the peer takes no writes with this tag
  kNotQuiesced,     // NotQuiesced: failed, and bytes of it may still land
};

class Error : public std::runtime_error {
 public:
  Error(Errc code, const std::string& what) : std::runtime_error(what), code_(code) {}
  Errc code() const noexcept { return code_; }

 private:
  Errc code_;
};

// An errno value in words, with its number: "Permission denied (errno 13)".
inline std::string reason(int err) {
  char buffer[128];
  return join(strerror_r(err, buffer, sizeof buffer), " (errno ", err, ")");
}

}  // namespace rdma_kv
