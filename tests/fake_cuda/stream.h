// A stream: one real thread that does what it is given, in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "fake_cuda/call.h"

namespace rdma_kv::cuda {

struct CUstream_st : std::enable_shared_from_this<CUstream_st> {
 public:
  using Ticket = std::uint64_t;  // the number of a piece of work; 0: none

  CUstream_st(RawContext context, bool is_blocking);

  RawContext context() const { return context_; }
  bool is_blocking() const { return is_blocking_; }  // in order with the legacy default stream

  Ticket enqueue(std::function<void()> work);
  Ticket last();
  bool has_done(Ticket ticket);
  void wait(Ticket ticket);
  void close();  // the thread ends once all is done

 private:
  void run();

  const RawContext context_;
  const bool is_blocking_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  Ticket given_ = 0;
  Ticket done_ = 0;
  bool is_closed_ = false;
};

}  // namespace rdma_kv::cuda

namespace fake {

using Stream = std::shared_ptr<rdma_kv::cuda::CUstream_st>;

// Those below with world() held.

// The stream behind a handle, 0 being the default stream of the current context. Null: no such one.
Stream find_stream(RawStream handle);

// As work is submitted by the user: also in order with the legacy default stream.
rdma_kv::cuda::CUstream_st::Ticket submit(const Stream& stream, std::function<void()> work);

// Submits what needs the stream's context to be current; kCuInvalidContext when it is not.
Status submit_here(RawStream handle, std::function<void()> work, Stream* taken = nullptr);

// Everything on its way in a context.
class Pending {
 public:
  explicit Pending(RawContext context);
  void wait() const;  // without world()

 private:
  std::deque<std::pair<Stream, rdma_kv::cuda::CUstream_st::Ticket>> work_;
};

void forget_streams(RawContext context);

}  // namespace fake
