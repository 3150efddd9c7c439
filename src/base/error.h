// The one exception of the core. Setting up throws it; moving bytes never does.
#pragma once

#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>

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

// Copies share the text, so that none can fail; std::runtime_error's do, too, but count them where
// ThreadSanitizer does not see it.
class Error : public std::exception {
 public:
  Error(Errc code, std::string what)
      : code_(code), what_(std::make_shared<const std::string>(std::move(what))) {}
  Errc code() const noexcept { return code_; }
  const char* what() const noexcept override { return what_->c_str(); }

 private:
  Errc code_;
  std::shared_ptr<const std::string> what_;
};

// An errno value in words, with its number: "Permission denied (errno 13)".
inline std::string reason(int err) {
  char buffer[128];
  return join(strerror_r(err, buffer, sizeof buffer), " (errno ", err, ")");
}

}  // namespace rdma_kv
