#include "base/file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/fd.h"

namespace rdma_kv {

std::optional<std::string> first_line_of(const char* path) {
  const UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
  if (!file) return std::nullopt;
  std::string line(4095, '\0');
  ssize_t got = 0;
  do {
    got = ::read(file.get(), line.data(), line.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) return std::nullopt;
  line.resize(static_cast<std::size_t>(got));
  line.resize(std::min(line.find('\n'), line.size()));
  return line;
}

}  // namespace rdma_kv
