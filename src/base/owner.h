// Objects that a forked child inherits, and must leave alone.
#pragma once

#include <sys/types.h>
#include <unistd.h>

namespace rdma_kv {

// Deletes in the process that made the object, and nowhere else. A child that fork() made has a
// copy of it without its threads: ending it there would wait for them for ever, and would shut
// sockets and take descriptors out of epolls that the parent still uses. The child's copy is lost.
template <class T>
class DeleteInOwner {
 public:
  void operator()(T* object) const noexcept {
    if (::getpid() == owner_) delete object;
  }

 private:
  pid_t owner_ = ::getpid();
};

}  // namespace rdma_kv
