// The status codes of the driver that are answered here, named after those of <cuda.h>.
#pragma once

#include "cuda/api.h"

namespace fake {

using namespace rdma_kv::cuda;

inline constexpr Status kCuInvalidValue = 1;
inline constexpr Status kCuOutOfMemory = 2;
inline constexpr Status kCuNotInitialized = 3;
inline constexpr Status kCuNoDevice = 100;
inline constexpr Status kCuInvalidDevice = 101;
inline constexpr Status kCuInvalidImage = 200;
inline constexpr Status kCuInvalidContext = 201;
inline constexpr Status kCuMapFailed = 205;
inline constexpr Status kCuInvalidHandle = 400;
inline constexpr Status kCuNotFound = 500;
inline constexpr Status kCuOutOfResources = 701;
inline constexpr Status kCuContextIsDestroyed = 709;
inline constexpr Status kCuNotPermitted = 800;
inline constexpr Status kCuNotSupported = 801;

}  // namespace fake
