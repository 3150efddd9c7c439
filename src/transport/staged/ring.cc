#include "transport/staged/ring.h"

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"

namespace rdma_kv::transport::staged {
namespace {

// Releases under way. Never freed: one may outlast the process's last moment.
struct Releases {
  std::mutex mutex;
  std::condition_variable is_over;
  int count = 0;
};

Releases& releases() {
  static auto& all = *new Releases;
  return all;
}

void end_one() noexcept {
  const std::lock_guard lock(releases().mutex);
  --releases().count;
  releases().is_over.notify_all();
}

// Made after the driver was opened, so it goes before the driver does.
struct WaitAtExit {
  ~WaitAtExit() {
    if (::getpid() != owner) return;  // a forked child has none of the threads
    std::unique_lock lock(releases().mutex);
    releases().is_over.wait_for(lock, std::chrono::seconds(1),
                                [] { return releases().count == 0; });
  }
  const pid_t owner = ::getpid();
};

}  // namespace

Ring::Ring(std::shared_ptr<const cuda::Context> context, std::uint64_t bytes) : bytes_(bytes) {
  if (context) {
    pinned_ = std::make_unique<cuda::PinnedMemory>(std::move(context), bytes);
    data_ = static_cast<std::uint8_t*>(pinned_->data());
    return;
  }
  void* const mapped =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    const int err = errno;
    throw Error(Errc::kRegistration,
                join("mmap of ", bytes, " bytes to stage blocks through: ", reason(err)));
  }
  data_ = static_cast<std::uint8_t*>(mapped);
}

Ring::~Ring() {
  if (!pinned_) ::munmap(data_, bytes_);
}

void release_aside(std::function<void()> release) noexcept {
  static const WaitAtExit wait_at_exit;
  {
    const std::lock_guard lock(releases().mutex);
    ++releases().count;
  }
  const auto shared = std::make_shared<std::function<void()>>(std::move(release));
  const auto run = [shared] {
    (*shared)();
    end_one();
  };
  try {
    std::thread(run).detach();
  } catch (const std::exception&) {  // no thread to be had
    run();
  }
}

}  // namespace rdma_kv::transport::staged
