// One owner type per verbs object.
#pragma once

#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "verbs/lib.h"

namespace rdma_kv::verbs {

// Releasing never throws: it may run while another error is already on its way up. An object exists
// only when the library is open, so lib() cannot throw here.
template <auto Destroy>
struct Release {
  template <class T>
  void operator()(T* object) const noexcept {
    if (const int rc = (lib().*Destroy)(object); rc != 0) {
      log(LogLevel::kWarning, join("releasing a verbs object failed: ", reason(rc)));
    }
  }
};

using UniqueContext = std::unique_ptr<ibv_context, Release<&Lib::close_device>>;
using UniquePd = std::unique_ptr<ibv_pd, Release<&Lib::dealloc_pd>>;
using UniqueMr = std::unique_ptr<ibv_mr, Release<&Lib::dereg_mr>>;
using UniqueChannel = std::unique_ptr<ibv_comp_channel, Release<&Lib::destroy_comp_channel>>;
using UniqueCq = std::unique_ptr<ibv_cq, Release<&Lib::destroy_cq>>;
using UniqueQp = std::unique_ptr<ibv_qp, Release<&Lib::destroy_qp>>;

}  // namespace rdma_kv::verbs
