#include "cuda/after.h"

#include "cuda/driver.h"

namespace rdma_kv::cuda {

void wait_on_host(After after) {
  switch (after.kind) {
    case After::Kind::kNothing:
      return;
    case After::Kind::kEvent:
      return check(api().event_synchronize(reinterpret_cast<RawEvent>(after.handle)),
                   "after=: cuEventSynchronize", Errc::kValue);
    case After::Kind::kStream:
      return check(api().stream_synchronize(reinterpret_cast<RawStream>(after.handle)),
                   "after=: cuStreamSynchronize", Errc::kValue);
  }
}

}  // namespace rdma_kv::cuda
