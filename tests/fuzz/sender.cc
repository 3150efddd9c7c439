// Fuzzes the sending end of the tcp transport; run by `scripts/fuzz sender`.
//
// A link opens, writes, is abandoned, polled and quiesced in any order, while its peer answers as
// it likes: with what an honest receiver would say, with other frames, with bytes. Whatever it
// says, what the link sends is valid to the model of a receiver and has the right bytes; a write
// completes once, as done only when all of it was sent and an ACK said so, as abandoned only when
// none of it can be sent any more; and the link calls itself quiesced only when the peer closed
// every stream.
#include <cerrno>
#include <deque>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "cache.h"
#include "input.h"
#include "kv/mapping.h"
#include "kv/plan.h"
#include "model.h"
#include "network.h"
#include "transport/tcp/link.h"

namespace fuzz {
namespace {

namespace kv = rdma_kv::kv;
namespace transport = rdma_kv::transport;

constexpr std::size_t kMostSteps = 200;
constexpr std::size_t kMostWrites = 4;
constexpr std::size_t kHelloBytes = 60;
constexpr std::size_t kAckBytes = 20;
constexpr std::uint64_t kEpoch = 0x1122334455667788;

constexpr int kMostBlocks = 10;  // of a write

// What is sent, from where; made once, as nobody changes it.
struct Source {
  explicit Source(Shape shape_) : shape(std::move(shape_)), cache(shape.prefill(), 5) {}
  Shape shape;
  Cache cache;
};

Source& source_of(std::uint8_t choice) {
  constexpr std::uint32_t kTargets = kMostWrites * kMostBlocks;
  static Source small({2, 16, kTargets, 1, 0, 1, 0, {{24, 40, 24, 24, 0, 0, 24}}});
  // More extents than one system call takes.
  static Source scattered(
      {64, 16, kTargets, 1, 0, 1, 0, {{3, 4, 3, 3, 0, 0, 3}, {2, 4, 2, 2, 0, 0, 2}}});
  // So many bytes that a write is split over streams.
  static Source large({1, 16, kTargets, 1, 0, 1, 0, {{60000, 60000, 60000, 60000, 0, 0, 60000}}});
  return choice % 8 == 7 ? large : choice % 8 == 6 ? scattered : small;
}

LinkModel::Memory empty_memory(const Shape& shape) {
  LinkModel::Memory memory;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (const auto& spec : shape.tensors) {
      memory.emplace_back(shape.decode_blocks * spec.decode_stride);
    }
  }
  return memory;
}

struct Job {
  transport::Write write;
  kv::Plan plan;
  std::vector<std::int32_t> src, dst;
  bool is_begun = false;
  bool is_posted = false;
  bool is_completed = false;
  unsigned applied_acks = 0;  // that reached the link
  unsigned aborted_acks = 0;
};

class Run {
 public:
  Run(Input input, Source& source, std::size_t streams)
      : input_(input),
        shape_(source.shape),
        source_(source.cache),
        mapping_(std::make_shared<const kv::Mapping>(
            kv::Mapping::from_prefill(source_.layout(), shape_.decode()))),
        model_(shape_, empty_memory(shape_), streams),
        streams_(streams) {}

  void play() {
    if (!open()) return;
    for (std::size_t i = 0; i < kMostSteps && !input_.is_empty(); ++i) {
      step();
      check();
    }
    link_.reset();
    for (const int fd : network::sockets()) MUST(network::at(fd).is_closed);
  }

 private:
  // The answers to HELLO lie ready before it is asked: the made-up network cannot wait.
  bool open() {
    const std::uint8_t welcome = input_.u8();
    transport::RemoteEnd remote;
    remote.name = "peer";
    remote.host = "10.0.0.1";
    remote.data_port = 4;
    remote.epoch = kEpoch;
    remote.link_id = 9;
    remote.token.fill(0xab);
    remote.mapping = mapping_;
    remote.deadline = rdma_kv::now() + rdma_kv::kSecond;
    network::answer_connections([&](int fd) {
      sockets_.push_back(fd);
      answered_.push_back(0);
      delivered_.push_back(0);
      if (welcome == 0xff) {  // something else, and perhaps more of it than a WELCOME
        network::arrive(fd, input_.raw(input_.u8()));
        network::at(fd).has_ended = input_.u8() % 2 == 0;
        network::at(fd).room = input_.u16();
        return;
      }
      std::vector<std::uint8_t> epoch;
      put(epoch, welcome == 0xfe ? 1 : kEpoch, 8);
      network::arrive(fd, frame(2, 0, epoch));
    });
    try {
      link_ = transport::tcp::open(remote, static_cast<std::uint16_t>(streams_));
    } catch (const rdma_kv::Error& error) {
      MUST(error.code() == rdma_kv::Errc::kHandshake);
      MUST(error.what()[0] != '\0');
      for (const int fd : network::sockets()) MUST(network::at(fd).is_closed);
      return false;
    }
    MUST(sockets_.size() == streams_);
    for (std::size_t i = 0; i < streams_; ++i) {
      MUST(network::at(sockets_[i]).sent.size() == kHelloBytes);
      delivered_[i] = kHelloBytes;
    }
    return true;
  }

  void step() {
    const std::uint8_t what = input_.u8();
    const int fd = sockets_[what / 16 % sockets_.size()];
    const std::size_t index = what / 16 % sockets_.size();
    network::Socket& socket = network::at(fd);
    switch (what % 16) {
      case 0:
      case 1:
        return post(input_.u8());
      case 2:
        return poll();
      case 3:
        return abandon(job_of(input_.u8()));
      case 4:
        return answer_honestly(index);
      case 5: {
        std::vector<std::uint8_t> status;
        const std::uint8_t about = input_.u8();
        put(status, about / 16 % 4, 4);
        return say(index, frame(7, about % 16, status));
      }
      case 6: {
        const auto bytes = input_.raw(std::size_t{input_.u8()} + 1);
        return say(index, {bytes.begin(), bytes.end()});
      }
      case 7:
        socket.room = input_.u16() * std::size_t{64};
        return;
      case 8:
        socket.room = SIZE_MAX;
        return;
      case 9:
        return network::set_pace(input_.u16() * std::size_t{64}, input_.u8() % 8);
      case 10:
        socket.has_ended = true;
        return;
      case 11:
        if (socket.broken == 0) socket.broken = input_.u8() % 2 == 0 ? ECONNRESET : ETIMEDOUT;
        return;
      case 12:
        return quiesce();
      case 13:
        if (!is_quiescing_) link_->break_off({rdma_kv::Errc::kTimeout, "the input says so"});
        return;
      case 14:
        return arm(input_.u8() % 2 == 0);
      default:
        // As an engine does: everything on, until nothing moves.
        for (int fd_now : sockets_) network::at(fd_now).room = SIZE_MAX;
        for (int turn = 0; turn < 4; ++turn) {
          if (posting_) post(0);
          poll();
          check();
          for (std::size_t i = 0; i < sockets_.size(); ++i) answer_honestly(i);
        }
    }
  }

  Job* job_of(std::uint8_t choice) {
    return jobs_.empty() ? nullptr : &jobs_[choice % jobs_.size()];
  }

  void post(std::uint8_t choice) {
    if (is_quiescing_) return;
    if (!posting_) {
      if (jobs_.size() == kMostWrites) return;
      posting_ = new_job(choice);
    }
    posting_->is_begun = true;
    const transport::Post result = link_->post(posting_->write);
    MUST((result == transport::Post::kBroken) == link_->is_broken());
    if (result == transport::Post::kPosted) {
      posting_->is_posted = true;
      posting_ = nullptr;
    }
    if (result == transport::Post::kBroken) posting_ = nullptr;
  }

  // Abandoned writes are not posted any more.
  void abandon(Job* job) {
    if (!job || !job->is_begun || job->is_completed || is_quiescing_) return;
    link_->abandon(job->write);
    if (posting_ == job) posting_ = nullptr;
  }

  // Each write has destination blocks of its own, so that what landed can be compared.
  Job* new_job(std::uint8_t choice) {
    Job& job = jobs_.emplace_back();
    const auto number = static_cast<std::int32_t>(jobs_.size());
    const int count = choice % (kMostBlocks + 1);
    const int stride = choice / 16 % 2 == 0 ? 1 : 3;  // neighbours, or none
    for (int i = 0; i < count; ++i) {
      job.src.push_back(i * stride % 16);
      job.dst.push_back((number - 1) * kMostBlocks + (choice / 32 % 2 == 0 ? i : count - 1 - i));
    }
    job.plan.assign(*mapping_, std::span<const std::int32_t>(job.src),
                    std::span<const std::int32_t>(job.dst), {0, shape_.layers});
    job.write.id = static_cast<std::uint64_t>(number);
    job.write.tag = static_cast<std::uint32_t>(choice);
    job.write.plan = &job.plan;
    return &job;
  }

  void poll() {
    if (is_quiescing_) return;
    transport::Completion done[4];
    const std::size_t count = link_->poll(done, 1 + input_.u8() % 4);
    follow();
    for (std::size_t i = 0; i < count; ++i) complete(*done[i].write);
  }

  void complete(const transport::Write& write) {
    Job& job = jobs_[write.id - 1];
    MUST(&job.write == &write);
    MUST(!job.is_completed);
    job.is_completed = true;
    note_acks();
    if (posting_ == &job) posting_ = nullptr;
    const bool was_sent = sent_parts(job) > 0;
    if (write.is_abandoned) {
      MUST(!was_sent || job.aborted_acks > 0);
      MUST(!is_under_way(job));
      return;
    }
    MUST(job.applied_acks > 0);
    bool has_arrived = false;
    for (const std::uint64_t applied : model_.applied()) has_arrived |= applied == write.id;
    MUST(has_arrived);
    check_bytes(job);
  }

  std::size_t sent_parts(const Job& job) {
    std::size_t parts = 0;
    for (const std::uint64_t transfer : begun_) parts += transfer == job.write.id ? 1 : 0;
    return parts;
  }

  // Some of a part was sent, and the receiver waits for more of it.
  bool is_under_way(const Job& job) {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if (model_.stream(i).is_in_part() && model_.stream(i).transfer() == job.write.id) return true;
    }
    return false;
  }

  void check_bytes(const Job& job) {
    for (std::uint32_t region = 0; region < source_.region_count(); ++region) {
      const Shape::Tensor& spec = shape_.tensors[region % shape_.tensors.size()];
      for (std::size_t i = 0; i < job.src.size(); ++i) {
        const auto* const from = source_.region(region) +
                                 static_cast<std::size_t>(job.src[i]) * spec.prefill_stride +
                                 spec.src_offset;
        const auto* const to = model_.memory()[region].data() +
                               static_cast<std::size_t>(job.dst[i]) * spec.decode_stride +
                               spec.dst_offset;
        MUST(std::equal(from, from + spec.bytes, to));
      }
    }
  }

  void quiesce() {
    is_quiescing_ = true;
    posting_ = nullptr;
    std::vector<bool> is_over;
    for (const int fd : sockets_) {
      const auto& socket = network::at(fd);
      is_over.push_back(socket.has_ended || socket.broken == ECONNRESET);
    }
    const bool is_quiesced = link_->quiesce() == transport::Quiesce::kQuiesced;
    for (std::size_t i = 0; i < is_over.size(); ++i) MUST(!is_quiesced || is_over[i]);
    for (const int fd : sockets_) {
      const auto& socket = network::at(fd);
      MUST(socket.is_shut_for_writing || socket.has_ended || socket.broken != 0);
    }
  }

  void arm(bool wants_post) {
    if (!link_->arm(wants_post) && !is_quiescing_) {
      // There is something to do now: a completion to collect, or the end to see.
      transport::Completion done[1];
      const std::size_t count = link_->poll(done, 1);
      follow();
      MUST(count == 1 || link_->is_broken());
      if (count == 1) complete(*done[0].write);
    }
  }

  void say(std::size_t index, const std::vector<std::uint8_t>& bytes) {
    network::Socket& socket = network::at(sockets_[index]);
    if (socket.has_ended || socket.is_closed) return;
    network::arrive(sockets_[index], bytes);
  }

  void answer_honestly(std::size_t index) {
    follow();
    const auto& answers = model_.answers(index);
    const std::vector<std::uint8_t> news(
        answers.begin() + static_cast<std::ptrdiff_t>(answered_[index]), answers.end());
    answered_[index] = answers.size();
    if (!news.empty()) say(index, news);
  }

  // Whatever looks like an ACK counts as one: only too few would be a mistake.
  void note_acks() {
    for (Job& job : jobs_) job.applied_acks = job.aborted_acks = 0;
    for (const int fd : sockets_) {
      const auto& bytes = network::at(fd).arriving;
      for (std::size_t at = 0; at + kAckBytes <= bytes.size(); ++at) {
        if (bytes[at] != 7 || bytes[at + 4] != 4) continue;
        const std::size_t id = bytes[at + 8];
        if (id == 0 || id > jobs_.size()) continue;
        (bytes[at + 16] == 0 ? jobs_[id - 1].applied_acks : jobs_[id - 1].aborted_acks) += 1;
      }
    }
  }

  // The model takes in what was sent.
  void follow() {
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      const auto& sent = network::at(sockets_[i]).sent;
      StreamModel& stream = model_.stream(i);
      stream.deliver(std::span(sent).subspan(delivered_[i]));
      delivered_[i] = sent.size();
      const auto on_begun = [&] { begun_.push_back(stream.transfer()); };
      model_.serve(i, on_begun);
    }
    MUST(!model_.was_nonsense());
  }

  void check() {
    follow();
    if (!link_->is_broken()) return;
    MUST(!link_->failure().what.empty());
  }

  Input input_;
  const Shape& shape_;
  Cache& source_;
  std::shared_ptr<const kv::Mapping> mapping_;
  LinkModel model_;
  const std::size_t streams_;
  std::deque<Job> jobs_;  // at fixed addresses; outlive the link
  std::unique_ptr<transport::Link> link_;
  std::vector<int> sockets_;
  std::vector<std::size_t> delivered_;  // of what was sent, to the model
  std::vector<std::size_t> answered_;   // of what the model answered, to the link
  std::vector<std::uint64_t> begun_;    // transfers of the parts that the model saw begin
  Job* posting_ = nullptr;
  bool is_quiescing_ = false;
};

}  // namespace
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fuzz;
  network::reset();
  Input input(data, size);
  const std::uint8_t choice = input.u8();
  Run(input, source_of(choice), choice / 16 % 4 + std::size_t{1}).play();
  (void)rdma_kv::drain_log();
  return 0;
}
