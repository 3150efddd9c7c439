// The offer of cma, as it is in the message.
#pragma once

#include <pybind11/pybind11.h>

#include "transport/cma/offer.h"

namespace rdma_kv::bindings {

transport::cma::Offer to_cma_offer(const pybind11::dict& given);

}  // namespace rdma_kv::bindings
