// Fuzzes the receiving end of the tcp transport; run by `scripts/fuzz receiver`.
//
// A sender that has shown its token says what it likes, in pieces of any size. A model that was
// written a second time from the text of the protocol says what must come of it: the same memory to
// the last byte, the same notices, the same answers, the same end. And whatever the model thinks,
// no byte changes that no accepted WRITE named.
#include <memory>
#include <utility>

#include "base/log.h"
#include "cache.h"
#include "frames.h"
#include "input.h"
#include "kv/mapping.h"
#include "model.h"
#include "network.h"
#include "notices.h"
#include "reactor.h"
#include "transport/tcp/inbound.h"

namespace fuzz {
namespace {

namespace kv = rdma_kv::kv;
namespace transport = rdma_kv::transport;

// So that a turn of the receiver is never cut, which would reorder what streams say.
constexpr std::size_t kMostBytes = std::size_t{3} << 20;
constexpr std::size_t kMostSteps = 200;

class Run {
 public:
  Run(Input input, const Shape& shape, std::size_t streams)
      : input_(input),
        shape_(shape),
        cache_(shape.decode(), 1),
        model_(shape, cache_.contents(), streams),
        before_(model_.memory()),
        link_(
            transport::tcp::make_inbound(reactor_, notices_, {"peer", 7},
                                         kv::Mapping::into_decode(shape.prefill(), cache_.layout()),
                                         static_cast<std::uint16_t>(streams))) {
    for (std::size_t i = 0; i < streams; ++i) {
      sockets_.push_back(network::make_socket());
      delivered_.push_back(0);
      MUST(link_->attach(rdma_kv::UniqueFd(sockets_[i]), static_cast<std::uint16_t>(i),
                         static_cast<std::uint16_t>(streams)));
    }
  }

  void play() {
    for (std::size_t i = 0; i < kMostSteps && !input_.is_empty(); ++i) {
      step();
      if (!is_holding_) settle();
    }
    for (const int socket : sockets_) network::at(socket).room = SIZE_MAX;
    notices_.make_room();
    settle(true);
    check_all_is_read();
    check_places();
    link_->end("the input is over");
    for (const int socket : sockets_) MUST(network::at(socket).is_closed);
  }

 private:
  void step() {
    const std::uint8_t what = input_.u8();
    const std::size_t stream = what / 16 % sockets_.size();
    network::Socket& socket = network::at(sockets_[stream]);
    const auto kind = static_cast<Say>(what % 16);
    if (kind < Say::kCount) return say_on(stream, kind);
    switch (what % 16 - static_cast<int>(Say::kCount)) {
      case 0:
        is_holding_ = !is_holding_;
        return;
      case 1:
        return network::set_pace(input_.u16(), input_.u8() % 8);
      case 2:
        socket.room = input_.u16();
        return;
      case 3:
        socket.has_ended = true;
        return;
      case 4:
        if (socket.broken == 0) socket.broken = input_.u8() % 2 == 0 ? ECONNRESET : ETIMEDOUT;
        return;
      case 5:
        return say_on(stream, Say::kRest);
      default:
        return rare(input_.u8());
    }
  }

  void rare(std::uint8_t what) {
    if (what % 4 == 0) notices_.fill();
    if (what % 4 == 1) notices_.make_room();
    if (what != 0xee) return;
    link_->end("the input says so");
    model_.end();
  }

  void say_on(std::size_t stream, Say kind) {
    // A part is a matter of what was understood: the model must be up to date.
    if (kind == Say::kRest || kind == Say::kAbortThis) settle();
    const auto bytes = say(kind, input_, shape_, model_.stream(stream));
    said_ += bytes.size();
    if (said_ > kMostBytes || network::at(sockets_[stream]).has_ended) return;
    network::arrive(sockets_[stream], bytes);
  }

  void settle(bool is_over = false) {
    run_handlers([&](int fd) { follow(fd); });
    if (!is_exact()) return;
    check_answers();
    MUST(notices_.tags == model_.notices());
    MUST(link_->is_ended() == model_.is_ended());
    if (is_over || cache_.is_small()) check_memory();
  }

  // A receiver that cannot answer, or whose notices nobody takes, stops reading at a place that is
  // its own business; and a call that fails does so at another.
  bool is_exact() const {
    if (notices_.was_full()) return false;
    for (const int fd : sockets_) {
      const auto& socket = network::at(fd);
      if (socket.was_blocked || socket.broken != 0) return false;
    }
    return true;
  }

  // The receiver has read one stream to its end: so does the model.
  void follow(int fd) {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if (sockets_[i] != fd) continue;
      const auto& socket = network::at(fd);
      model_.stream(i).deliver(std::span(socket.arriving).subspan(delivered_[i]));
      delivered_[i] = socket.arriving.size();
      model_.serve(i);
      if (socket.has_ended) model_.end();
    }
  }

  // A link that ends in disorder keeps its last answers to itself.
  void check_answers() {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      const auto& expected = model_.answers(i);
      const auto& sent = network::at(sockets_[i]).sent;
      MUST(sent.size() <= expected.size());
      MUST(sent.size() == expected.size() || (model_.is_ended() && !model_.ended_in_order()));
      MUST(std::equal(sent.begin(), sent.end(), expected.begin()));
    }
  }

  // Whatever held the link up, it goes on.
  void check_all_is_read() {
    for (const int fd : sockets_) {
      const auto& socket = network::at(fd);
      MUST(link_->is_ended() || socket.read == socket.arriving.size());
    }
  }

  void check_memory() { MUST(cache_.contents() == model_.memory()); }

  // Only what some stream's accepted WRITE named may have changed; asked without the rest of the
  // model, so that it holds for blocked and broken streams too.
  void check_places() {
    auto expected = before_;
    const auto found = cache_.contents();
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      // Beyond the end of the link, too: the model may have ended earlier than the receiver.
      StreamModel& stream = model_.stream(i);
      stream.deliver(std::span(network::at(sockets_[i]).arriving).subspan(delivered_[i]));
      for (auto event = stream.step();
           event != StreamModel::Event::kNeedsMore && event != StreamModel::Event::kNonsense;) {
        event = stream.step();
      }
      for (const Span& span : stream.allowed()) {
        for (std::size_t at = span.offset; at < span.offset + span.bytes; ++at) {
          expected[span.region][at] = found[span.region][at];
        }
      }
    }
    MUST(found == expected);
  }

  Input input_;
  const Shape& shape_;
  Cache cache_;
  LinkModel model_;
  const std::vector<std::vector<std::uint8_t>> before_;
  rdma_kv::Reactor reactor_{"fuzz"};
  Notices notices_;
  std::unique_ptr<transport::stream::StreamInbound> link_;
  std::vector<int> sockets_;
  std::vector<std::size_t> delivered_;  // to the model
  std::size_t said_ = 0;
  bool is_holding_ = false;
};

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fuzz;
  network::reset();
  Input input(data, size);
  const std::uint8_t choice = input.u8();
  const Shape& shape = shapes()[choice % shapes().size()];
  Run(input, shape, choice / 16 % 4 + std::size_t{1}).play();
  (void)rdma_kv::drain_log();
  return 0;
}
