// What a bad work completion means, in words.
#pragma once

#include <string>

#include "base/error.h"
#include "verbs/lib.h"

namespace rdma_kv::verbs {

struct Explained {
  Errc code;
  std::string what;  // status, vendor code, usual meaning and remedy
};

// Of the first cause; IBV_WC_WR_FLUSH_ERR is what follows one. Only after a failure: it allocates.
Explained explain(const ibv_wc& completion);

}  // namespace rdma_kv::verbs
