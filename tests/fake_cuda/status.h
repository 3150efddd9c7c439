// The status codes of the driver that are answered here, with the names of <cuda.h>.
#pragma once

#include "cuda/api.h"

namespace fake {

using namespace rdma_kv::cuda;

inline constexpr Status kInvalidValue = 1;
inline constexpr Status kOutOfMemory = 2;
inline constexpr Status kNotInitialized = 3;
inline constexpr Status kNoDevice = 100;
inline constexpr Status kInvalidDevice = 101;
inline constexpr Status kInvalidImage = 200;
inline constexpr Status kInvalidContext = 201;
inline constexpr Status kMapFailed = 205;
inline constexpr Status kInvalidHandle = 400;
inline constexpr Status kNotFound = 500;
inline constexpr Status kOutOfResources = 701;
inline constexpr Status kContextIsDestroyed = 709;
inline constexpr Status kNotPermitted = 800;
inline constexpr Status kNotSupported = 801;

}  // namespace fake
