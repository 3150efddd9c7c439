#include "transport/stream/hello.h"

#include <poll.h>

#include <cerrno>
#include <string>

#include "base/error.h"
#include "transport/stream/frames.h"
#include "transport/stream/mailbox.h"
#include "transport/stream/socket.h"

namespace rdma_kv::transport::stream {
namespace {

[[noreturn]] void fail(const RemoteEnd& remote, const std::string& path, const std::string& why) {
  throw Error(Errc::kHandshake, join("opening a stream to ", remote.name, " (", path, "): ", why));
}

void check_answer(const Frame& frame, const RemoteEnd& remote, const std::string& path) {
  if (frame.header.type == FrameType::kRefused) {
    const auto why = decode_refused(frame.body);
    fail(remote, path,
         join("refused: ", why ? *why : "(no reason given)",
              "; disconnect and connect again to get a new token"));
  }
  const auto epoch =
      frame.header.type == FrameType::kWelcome ? decode_welcome(frame.body) : std::nullopt;
  if (!epoch) {
    fail(remote, path,
         join("the answer to HELLO was ", name_of(frame.header.type),
              "; do both sides run the same version?"));
  }
  if (*epoch != remote.epoch) {
    fail(remote, path, "the decode process was restarted since the handshake; connect again");
  }
}

}  // namespace

UniqueFd open_stream(const RemoteEnd& remote, std::uint16_t index, std::uint16_t count) {
  UniqueFd fd = connect_to(parse_address(remote.host, remote.data_port), remote.deadline);
  const std::string path = path_of(fd.get());
  Hello hello;
  hello.stream_index = static_cast<std::uint16_t>(remote.streams_before + index);
  hello.stream_count =
      static_cast<std::uint16_t>(remote.streams_before + count + remote.streams_behind);
  hello.link_id = remote.link_id;
  hello.token = remote.token;
  hello.receiver_epoch = remote.epoch;
  Outbox outbox;
  (void)outbox.push(encode_hello(hello));
  if (outbox.flush(fd.get()) != Io::kDone) {
    const int err = errno;
    fail(remote, path, join("send: ", reason(err), "; the peer went away while connecting"));
  }
  Inbox inbox;
  Frame answer{};
  while (true) {
    if (!wait_for(fd.get(), POLLIN, remote.deadline)) {
      fail(remote, path, "no answer to HELLO before the deadline; is the decode process stuck?");
    }
    switch (inbox.fill(fd.get())) {
      case Io::kDone:
      case Io::kBlocked:
        break;
      case Io::kEof:
        fail(remote, path,
             "the peer closed it without an answer; does something else listen on this port?");
      case Io::kError: {
        const int err = errno;
        fail(remote, path, join("recv: ", reason(err), "; does the decode process still run?"));
      }
    }
    const auto next = inbox.next(answer);
    if (next == Inbox::Next::kNonsense) {
      fail(remote, path, "the answer makes no sense; does something else listen on this port?");
    }
    if (next == Inbox::Next::kFrame) break;
  }
  check_answer(answer, remote, path);
  return fd;
}

}  // namespace rdma_kv::transport::stream
