#include "fake_cuda/stream.h"

#include <pthread.h>

#include <map>
#include <thread>
#include <vector>

#include "fake_cuda/context.h"

namespace rdma_kv::cuda {

CUstream_st::CUstream_st(RawContext context, bool is_blocking)
    : context_(context), is_blocking_(is_blocking) {}

CUstream_st::Ticket CUstream_st::enqueue(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (given_ == 0) std::thread([self = shared_from_this()] { self->run(); }).detach();
  queue_.push_back(std::move(work));
  changed_.notify_all();
  return ++given_;
}

CUstream_st::Ticket CUstream_st::last() {
  const std::lock_guard lock(mutex_);
  return given_;
}

bool CUstream_st::has_done(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  return done_ >= ticket;
}

void CUstream_st::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket; });
}

void CUstream_st::close() {
  const std::lock_guard lock(mutex_);
  is_closed_ = true;
  changed_.notify_all();
}

void CUstream_st::run() {
  ::pthread_setname_np(::pthread_self(), "fake-gpu");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !queue_.empty() || is_closed_; });
    if (queue_.empty()) return;
    {
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
    }
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace rdma_kv::cuda

namespace fake {
namespace {

using rdma_kv::cuda::CUstream_st;
using Ticket = CUstream_st::Ticket;

// CU_STREAM_LEGACY and CU_STREAM_PER_THREAD are handles of every context.
const RawStream kLegacy = reinterpret_cast<RawStream>(1);
const RawStream kPerThread = reinterpret_cast<RawStream>(2);

struct Event {
  RawContext context;
  Stream stream;  // null: not recorded yet
  Ticket ticket = 0;
};

std::map<RawStream, Stream>& streams() {
  static auto& all = *new std::map<RawStream, Stream>;
  return all;
}

// Destroyed, with work on its way.
std::vector<Stream>& draining() {
  static auto& all = *new std::vector<Stream>;
  return all;
}

void end(const Stream& stream) {
  std::erase_if(draining(), [](const Stream& it) { return it->has_done(it->last()); });
  stream->close();
  draining().push_back(stream);
}

std::map<RawContext, Stream>& legacy_streams() {
  static auto& all = *new std::map<RawContext, Stream>;
  return all;
}

std::map<RawEvent, Event>& events() {
  static auto& all = *new std::map<RawEvent, Event>;
  return all;
}

Stream legacy_stream(RawContext context) {
  Stream& stream = legacy_streams()[context];
  if (stream == nullptr) stream = std::make_shared<CUstream_st>(context, true);
  return stream;
}

void wait_behind(const Stream& stream, const Stream& other) {
  const Ticket ticket = other->last();
  if (!other->has_done(ticket)) stream->enqueue([other, ticket] { other->wait(ticket); });
}

}  // namespace

Stream find_stream(RawStream handle) {
  if (handle == nullptr || handle == kLegacy || handle == kPerThread) {
    return is_alive(current_context()) ? legacy_stream(current_context()) : nullptr;
  }
  const auto found = streams().find(handle);
  return found != streams().end() ? found->second : nullptr;
}

Ticket submit(const Stream& stream, std::function<void()> work) {
  const Stream legacy = legacy_stream(stream->context());
  if (stream == legacy) {
    for (const auto& [handle, other] : streams()) {
      if (other->context() == stream->context() && other->is_blocking()) wait_behind(stream, other);
    }
  } else if (stream->is_blocking()) {
    wait_behind(stream, legacy);
  }
  return stream->enqueue(std::move(work));
}

Status submit_here(RawStream handle, std::function<void()> work, Stream* taken) {
  if (!is_alive(current_context())) return kCuInvalidContext;
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return kCuInvalidHandle;
  if (stream->context() != current_context()) return kCuInvalidContext;
  submit(stream, std::move(work));
  if (taken != nullptr) *taken = stream;
  return kSuccess;
}

Pending::Pending(RawContext context) {
  for (const auto& [handle, stream] : streams()) {
    if (stream->context() == context) work_.emplace_back(stream, stream->last());
  }
  for (const Stream& stream : draining()) {
    if (stream->context() == context) work_.emplace_back(stream, stream->last());
  }
  const auto legacy = legacy_streams().find(context);
  if (legacy != legacy_streams().end()) work_.emplace_back(legacy->second, legacy->second->last());
}

void Pending::wait() const {
  for (const auto& [stream, ticket] : work_) stream->wait(ticket);
}

void forget_streams(RawContext context) {
  for (auto at = streams().begin(); at != streams().end();) {
    if (at->second->context() != context) {
      ++at;
      continue;
    }
    at->second->close();
    at = streams().erase(at);
  }
  if (const auto legacy = legacy_streams().find(context); legacy != legacy_streams().end()) {
    legacy->second->close();
    legacy_streams().erase(legacy);
  }
  std::erase_if(events(), [&](const auto& entry) { return entry.second.context == context; });
}

}  // namespace fake

using namespace fake;

EXPORTED Status cuStreamCreateWithPriority(RawStream* out, unsigned flags, int) {
  ENTER("cuStreamCreateWithPriority");
  const std::lock_guard lock(world());
  if (out == nullptr || flags > kStreamNonBlocking) return kCuInvalidValue;
  if (!is_alive(current_context())) return kCuInvalidContext;
  const bool is_blocking = flags != kStreamNonBlocking;
  const auto made = std::make_shared<CUstream_st>(current_context(), is_blocking);
  streams()[made.get()] = made;
  *out = made.get();
  return kSuccess;
}

EXPORTED Status cuStreamCreate(RawStream* out, unsigned flags) {
  return cuStreamCreateWithPriority(out, flags, 0);
}

EXPORTED Status cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  ENTER("cuCtxGetStreamPriorityRange");
  const std::lock_guard lock(world());
  if (!is_alive(current_context())) return kCuInvalidContext;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return kSuccess;
}

// Returns at once; what is on its way is still done.
EXPORTED Status cuStreamDestroy_v2(RawStream handle) {
  ENTER("cuStreamDestroy_v2");
  const std::lock_guard lock(world());
  const auto found = streams().find(handle);
  if (found == streams().end()) return kCuInvalidHandle;
  end(found->second);
  streams().erase(found);
  return kSuccess;
}

EXPORTED Status cuStreamSynchronize(RawStream handle) {
  ENTER("cuStreamSynchronize");
  Stream stream;
  Ticket ticket = 0;
  {
    const std::lock_guard lock(world());
    stream = find_stream(handle);
    if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
    ticket = submit(stream, [] {});
  }
  stream->wait(ticket);
  return kSuccess;
}

EXPORTED Status cuStreamQuery(RawStream handle) {
  ENTER("cuStreamQuery");
  const std::lock_guard lock(world());
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
  return stream->has_done(stream->last()) ? kSuccess : kNotReady;
}

EXPORTED Status cuStreamGetCtx(RawStream handle, RawContext* out) {
  ENTER("cuStreamGetCtx");
  const std::lock_guard lock(world());
  if (out == nullptr) return kCuInvalidValue;
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
  *out = stream->context();
  return kSuccess;
}

// Waits for the record that the event has now; a later one does not matter.
EXPORTED Status cuStreamWaitEvent(RawStream handle, RawEvent event, unsigned flags) {
  ENTER("cuStreamWaitEvent");
  const std::lock_guard lock(world());
  const auto found = events().find(event);
  if (found == events().end()) return kCuInvalidHandle;
  if (flags != 0) return kCuInvalidValue;
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
  const auto [context, recorded_on, ticket] = found->second;
  if (recorded_on == nullptr) return kSuccess;
  submit(stream, [other = recorded_on, number = ticket] { other->wait(number); });
  return kSuccess;
}

EXPORTED Status cuLaunchHostFunc(RawStream handle, void (*function)(void*), void* argument) {
  ENTER("cuLaunchHostFunc");
  const std::lock_guard lock(world());
  if (function == nullptr) return kCuInvalidValue;
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
  submit(stream, [function, argument] {
    const InsideHostFunction inside;
    function(argument);
  });
  return kSuccess;
}

EXPORTED Status cuEventCreate(RawEvent* out, unsigned flags) {
  ENTER("cuEventCreate");
  const std::lock_guard lock(world());
  if (out == nullptr || flags > 7) return kCuInvalidValue;
  if (!is_alive(current_context())) return kCuInvalidContext;
  static std::uintptr_t number = 0x1000;  // never that of an event that is gone
  *out = reinterpret_cast<RawEvent>(number += 16);
  events()[*out] = {current_context(), nullptr, 0};
  return kSuccess;
}

EXPORTED Status cuEventDestroy_v2(RawEvent event) {
  ENTER("cuEventDestroy_v2");
  const std::lock_guard lock(world());
  return events().erase(event) == 1 ? kSuccess : kCuInvalidHandle;
}

EXPORTED Status cuEventRecord(RawEvent event, RawStream handle) {
  ENTER("cuEventRecord");
  const std::lock_guard lock(world());
  const auto found = events().find(event);
  if (found == events().end()) return kCuInvalidHandle;
  const Stream stream = find_stream(handle);
  if (stream == nullptr) return handle == nullptr ? kCuInvalidContext : kCuInvalidHandle;
  if (stream->context() != found->second.context) return kCuInvalidHandle;
  found->second.stream = stream;
  found->second.ticket = submit(stream, [] {});
  return kSuccess;
}

EXPORTED Status cuEventQuery(RawEvent event) {
  ENTER("cuEventQuery");
  const std::lock_guard lock(world());
  const auto found = events().find(event);
  if (found == events().end()) return kCuInvalidHandle;
  const Event& it = found->second;
  return it.stream == nullptr || it.stream->has_done(it.ticket) ? kSuccess : kNotReady;
}

EXPORTED Status cuEventSynchronize(RawEvent event) {
  ENTER("cuEventSynchronize");
  Event it;
  {
    const std::lock_guard lock(world());
    const auto found = events().find(event);
    if (found == events().end()) return kCuInvalidHandle;
    it = found->second;
  }
  if (it.stream != nullptr) it.stream->wait(it.ticket);
  return kSuccess;
}

EXPORTED Status cuCtxSynchronize() {
  ENTER("cuCtxSynchronize");
  RawContext context = nullptr;
  {
    const std::lock_guard lock(world());
    context = current_context();
    if (!is_alive(context)) return kCuInvalidContext;
  }
  wait_for_all(context);
  return kSuccess;
}
