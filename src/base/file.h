// Small files of /proc and /sys.
#pragma once

#include <optional>
#include <string>

namespace rdma_kv {

// The first line without its end; empty when the file cannot be opened or read. At most 4095 bytes.
std::optional<std::string> first_line_of(const char* path);

}  // namespace rdma_kv
