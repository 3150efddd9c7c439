#include "transport/staged/inbound.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "transport/notice_gate.h"
#include "transport/staged/chunk.h"
#include "transport/staged/gpu_copies.h"
#include "transport/staged/host_copy.h"
#include "transport/staged/limits.h"
#include "transport/staged/ring.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"

namespace rdma_kv::transport::staged {
namespace {

using stream::AckStatus;
using stream::FrameType;
using stream::Inbox;
using stream::Io;

// Frames answered in one turn of the reactor.
constexpr int kFramesPerTurn = 256;

struct Slot {
  bool is_busy = false;
  Chunk chunk;
  cuda::Slot* copy = nullptr;
  HostCopy host_copy;
};

// Lives on the reactor's thread, and is the sink of the inner link's notices: each names a slot.
class StagedInbound final : public stream::StreamInbound, private NoticeSink {
 public:
  StagedInbound(Reactor& reactor, NoticeSink& sink, Origin origin, kv::Mapping mapping,
                const kv::Layout& layout, std::shared_ptr<const cuda::CopyKernel> kernel,
                std::uint16_t inner_streams, const MakeInner& make_inner);
  ~StagedInbound() override;

  RemoteRing ring() const noexcept { return {shape_, ring_->address(), gpu_ != nullptr}; }

  bool attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept override;
  void end(const std::string& why) noexcept override { finish(why, LogLevel::kDebug); }
  bool is_ended() const noexcept override { return is_ended_; }
  bool is_quiesced() const noexcept override {
    return is_ended_ && !is_scattering() && inner_->is_quiesced();
  }
  std::string why_ended() const override { return why_; }
  const char* transport() const noexcept override { return inner_->transport(); }
  void confirm_quiesced() noexcept override { inner_->confirm_quiesced(); }
  void settle() noexcept override { inner_->settle(); }

 private:
  // The inner link's sink.
  bool deliver(const Origin& origin, std::uint32_t tag) noexcept override;
  bool wait_for_room(const Origin& origin, const void* who,
                     const std::function<void()>& go_on) noexcept override {
    return sink_.wait_for_room(origin, who, go_on);
  }
  void stop_waiting(const Origin& origin, const void* who) noexcept override {
    sink_.stop_waiting(origin, who);
  }
  bool has_reserve(const Origin& origin) noexcept override { return sink_.has_reserve(origin); }

  std::uint64_t offset_of(const Slot& slot) const noexcept {
    return static_cast<std::uint64_t>(&slot - slots_.data()) * shape_.slot_bytes;
  }
  bool take(std::uint32_t number);
  bool scatter(Slot& slot);
  void copy_some() noexcept;
  void look_at_copies() noexcept;
  void answer(Slot& slot) noexcept;
  bool is_scattering() const noexcept;
  void serve() noexcept;
  bool handle(const stream::Frame& frame) noexcept;
  void flush() noexcept;
  void watch(bool is_blocked) noexcept;
  void finish(const std::string& why, LogLevel level) noexcept;
  void finish_soon(std::string why) noexcept;
  void settle_end() noexcept;
  void nonsense(const char* what) noexcept;
  template <class Call>
  void soon(Call call) noexcept;

  Reactor& reactor_;
  NoticeSink& sink_;
  const Origin origin_;
  NoticeGate gate_;
  const kv::Mapping mapping_;
  const RingShape shape_;
  const std::shared_ptr<EventFd> wake_;  // the driver's thread may signal it after we have gone
  const std::shared_ptr<StagedInbound*> self_;  // for what the reactor does soon
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<GpuCopies> gpu_;  // null: this end's blocks are in host memory
  std::vector<Slot> slots_;
  kv::Plan plan_;  // memory for checking
  const std::uint16_t inner_streams_;
  std::unique_ptr<stream::StreamInbound> inner_;
  std::vector<Slot*> copying_;  // by the CPU, in order
  UniqueFd stream_;
  std::string path_;
  Inbox inbox_;
  stream::Outbox outbox_;
  std::string why_;
  std::uint32_t watched_ = EPOLLIN;
  bool has_room_ = true;  // for notices, as the last delivery told
  bool is_copying_soon_ = false;
  bool is_orderly_ = false;  // the sender asked for the end, and is told when all is over
  bool is_ended_ = false;
  bool is_settled_ = false;
};

StagedInbound::StagedInbound(Reactor& reactor, NoticeSink& sink, Origin origin, kv::Mapping mapping,
                             const kv::Layout& layout,
                             std::shared_ptr<const cuda::CopyKernel> kernel,
                             std::uint16_t inner_streams, const MakeInner& make_inner)
    : reactor_(reactor),
      sink_(sink),
      origin_(std::move(origin)),
      gate_(reactor, sink, origin_, [this] { serve(); }),
      mapping_(std::move(mapping)),
      shape_(shape_for(mapping_)),
      wake_(std::make_shared<EventFd>()),
      self_(std::make_shared<StagedInbound*>(this)),
      ring_(std::make_unique<Ring>(kernel ? kernel->context() : nullptr, shape_.bytes())),
      slots_(shape_.slots),
      inner_streams_(inner_streams) {
  if (kernel) {
    gpu_ = std::make_unique<GpuCopies>(std::move(kernel), layout, mapping_, Side::kDecode);
  }
  inner_ = make_inner(*this, layout_of(shape_, ring_->address()));
  inner_->set_on_end([this] {
    if (is_ended_) return tell_end();
    finish(inner_->why_ended(), LogLevel::kDebug);
  });
  if (gpu_) {
    reactor_.add(wake_->get(), EPOLLIN, [this](std::uint32_t) { look_at_copies(); });
  }
}

StagedInbound::~StagedInbound() {
  end("the data port was closed");
  *self_ = nullptr;
  if (gpu_) reactor_.remove(wake_->get());
  stream::shut_and_close(stream_);
  const bool is_quiesced = inner_->is_quiesced();
  inner_.reset();
  // The sender may still write there: nobody else shall get that memory.
  if (!is_quiesced) (void)ring_.release();
  if (!gpu_) return;
  std::shared_ptr<GpuCopies> gpu(std::move(gpu_));
  std::shared_ptr<Ring> ring(std::move(ring_));
  release_aside([gpu = std::move(gpu), ring = std::move(ring)]() mutable {
    gpu.reset();  // waits for scatters under way
    ring.reset();
  });
}

bool StagedInbound::attach(UniqueFd stream, std::uint16_t index, std::uint16_t count) noexcept {
  if (is_ended_ || count != inner_streams_ + 1) return false;
  if (index < inner_streams_) return inner_->attach(std::move(stream), index, inner_streams_);
  if (stream_) return false;
  try {
    path_ = stream::path_of(stream.get());
    reactor_.add(stream.get(), EPOLLIN, [this](std::uint32_t) { serve(); });
  } catch (const std::exception& error) {
    log(LogLevel::kError, join("staged link of ", origin_.name, ": ", error.what()));
    return false;
  }
  stream_ = std::move(stream);
  return true;
}

template <class Call>
void StagedInbound::soon(Call call) noexcept {
  reactor_.post([weak = std::weak_ptr(self_), call = std::move(call)] {
    const auto self = weak.lock();
    if (self && *self) call(**self);
  });
}

// ---- chunks

// A slot's bytes are there. Called by the inner link, which must not be ended from here.
bool StagedInbound::deliver(const Origin&, std::uint32_t tag) noexcept {
  if (is_ended_) return true;
  try {
    if (!take(tag)) finish_soon("the peer sent a chunk that makes no sense");
    flush();
  } catch (const std::exception& error) {
    finish_soon(error.what());
  }
  return has_room_;
}

bool StagedInbound::take(std::uint32_t number) {
  if (number == 0 || number > slots_.size() || !stream_) return false;
  Slot& slot = slots_[number - 1];
  if (slot.is_busy) return false;
  const std::uint8_t* const at = ring_->data() + offset_of(slot);
  if (!decode_chunk(at, shape_.slot_bytes, mapping_, plan_, slot.chunk)) return false;
  slot.is_busy = true;
  return scatter(slot);
}

bool StagedInbound::scatter(Slot& slot) {
  const Chunk& chunk = slot.chunk;
  const std::uint64_t payload = offset_of(slot) + chunk.payload_at;
  if (!gpu_) {
    slot.host_copy = HostCopy(Side::kDecode, mapping_, chunk.runs, chunk.head.layers, chunk.packing,
                              ring_->data() + payload);
    copying_.push_back(&slot);
    if (!is_copying_soon_) copy_some();
    return true;
  }
  slot.copy = gpu_->queue().take();
  if (slot.copy == nullptr) {
    slot.is_busy = false;
    finish_soon("no page-locked memory for another copy; this side's log says why");
    return true;
  }
  const cuda::Status status = gpu_->start(*slot.copy, ring_->on_device() + payload, chunk.packing,
                                          chunk.head.layers, chunk.runs, 0, chunk.blocks);
  if (status != cuda::kSuccess) {  // it has not begun
    gpu_->queue().give_back(std::exchange(slot.copy, nullptr));
    finish_soon(join("scattering blocks on the GPU: ", cuda::reason_of(status)));
  } else if (!gpu_->queue().announce(wake_)) {
    finish_soon("the GPU does not tell when it has scattered blocks");
  }
  return true;
}

void StagedInbound::copy_some() noexcept {
  std::uint64_t turn = kTurnBytes;
  std::size_t done = 0;
  while (done < copying_.size() && copying_[done]->host_copy.go_on(turn)) {
    answer(*copying_[done++]);
  }
  copying_.erase(copying_.begin(), copying_.begin() + static_cast<std::ptrdiff_t>(done));
  is_copying_soon_ = !copying_.empty();
  if (!is_copying_soon_) return;
  soon([](StagedInbound& self) {
    if (self.is_ended_) return;
    self.copy_some();
    self.flush();
  });
}

void StagedInbound::look_at_copies() noexcept {
  wake_->drain();
  bool is_any = false;
  for (Slot& slot : slots_) {
    if (slot.copy == nullptr || !slot.copy->is_done()) continue;
    gpu_->queue().give_back(std::exchange(slot.copy, nullptr));
    is_any = true;
    if (!is_ended_) answer(slot);
  }
  if (!is_any) return;
  if (is_ended_) return settle_end();
  flush();
}

// The chunk's bytes are in their blocks.
void StagedInbound::answer(Slot& slot) noexcept {
  slot.is_busy = false;
  const ChunkHead& head = slot.chunk.head;
  if (head.tag != 0) has_room_ = sink_.deliver(origin_, head.tag);
  if (!outbox_.push(stream::encode_ack(head.serial, AckStatus::kApplied))) {
    finish_soon(join("the peer does not read from stream ", path_));
  }
}

bool StagedInbound::is_scattering() const noexcept {
  const bool is_any = std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return slot.copy != nullptr && !slot.copy->is_done();
  });
  // A GPU that has failed runs nothing any more.
  return is_any && gpu_->queue().failure() == cuda::kSuccess;
}

// ---- the stream of notices and answers

void StagedInbound::serve() noexcept {
  if (is_ended_ || !stream_) return;
  stream::Frame frame{};
  for (int i = 0; i < kFramesPerTurn &&
                  outbox_.room() >= stream::kHeaderBytes + stream::kWordBytes && gate_.is_open();
       ++i) {
    const auto next = inbox_.next(frame);
    if (next == Inbox::Next::kNonsense) return nonsense("nonsense");
    if (next == Inbox::Next::kNeedMore) {
      const Io io = inbox_.fill(stream_.get());
      if (io == Io::kBlocked) break;
      if (io == Io::kEof) return finish(stream::closed_text(path_), LogLevel::kInfo);
      if (io == Io::kError) {
        return finish(stream::lost_text("recv", errno, path_), LogLevel::kInfo);
      }
      continue;
    }
    if (!handle(frame)) return;
  }
  flush();
}

// False when the link ended by it.
bool StagedInbound::handle(const stream::Frame& frame) noexcept {
  if (frame.header.type == FrameType::kNotice) {
    if (const auto tag = stream::decode_word(frame.body); tag && *tag != 0) gate_.deliver(*tag);
    (void)outbox_.push(stream::encode_ack(frame.header.transfer, AckStatus::kApplied));
    return true;
  }
  if (frame.header.type != FrameType::kEnd) {
    nonsense(stream::name_of(frame.header.type));
    return false;
  }
  is_orderly_ = true;
  finish("the peer ended it", LogLevel::kDebug);
  return false;
}

void StagedInbound::flush() noexcept {
  if (is_ended_ || !stream_) return;
  const Io io = outbox_.flush(stream_.get());
  if (io == Io::kError) return finish_soon(stream::lost_text("send", errno, path_));
  watch(io == Io::kBlocked);
}

// While answers wait nothing more is read: whoever asks must also listen. Frames left in the
// inbox by a turn that was cut short are announced by no EPOLLIN, so they wait for EPOLLOUT too.
void StagedInbound::watch(bool is_blocked) noexcept {
  const bool wants_out = is_blocked || inbox_.has_frame();
  const std::uint32_t events = !gate_.is_open() ? EPOLLONESHOT : wants_out ? EPOLLOUT : EPOLLIN;
  if (std::exchange(watched_, events) == events) return;
  reactor_.modify(stream_.get(), events);
}

void StagedInbound::nonsense(const char* what) noexcept {
  finish(join("unexpected ", what, " on stream ", path_, "; do both sides run the same version?"),
         LogLevel::kWarning);
}

// ---- the end

void StagedInbound::finish_soon(std::string why) noexcept {
  soon([why = std::move(why)](StagedInbound& self) { self.finish(why, LogLevel::kWarning); });
}

// Nothing more is taken; scatters that have begun go on.
void StagedInbound::finish(const std::string& why, LogLevel level) noexcept {
  if (std::exchange(is_ended_, true)) return;
  why_ = why;
  if (stream_) reactor_.remove(stream_.get());
  log(level, join("the staged ", transport(), " link of ", origin_.name, " ended: ", why));
  copying_.clear();
  if (!inner_->is_ended()) inner_->end(why);
  settle_end();
  tell_end();
}

// The closing of the stream tells the sender that nothing of what it had sent can land any more.
void StagedInbound::settle_end() noexcept {
  if (is_settled_ || is_scattering()) return;
  is_settled_ = true;
  if (stream_ && is_orderly_) {
    (void)outbox_.push(stream::encode_plain(FrameType::kEnded, 0));
    (void)outbox_.flush(stream_.get());  // lost when it does not fit: the closing says the same
  }
  stream::shut_and_close(stream_);
  soon([](StagedInbound& self) { self.tell_end(); });
}

}  // namespace

Accepted accept(Reactor& reactor, NoticeSink& sink, const Origin& origin, const kv::Layout& layout,
                const kv::Geometry& prefill, std::shared_ptr<const cuda::CopyKernel> kernel,
                std::uint16_t inner_streams, const MakeInner& make_inner) {
  auto inbound = std::make_unique<StagedInbound>(reactor, sink, origin,
                                                 kv::Mapping::into_decode(prefill, layout), layout,
                                                 std::move(kernel), inner_streams, make_inner);
  const RemoteRing ring = inbound->ring();
  return {std::move(inbound), ring};
}

}  // namespace rdma_kv::transport::staged
