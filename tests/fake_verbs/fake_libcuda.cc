// A FAKE libcuda.so.1: only what a NIC's registration and the flush ask of the driver. All other
// names that src/cuda/driver.cc wants are stubs that the build of this fake generates.
//
//   FAKE_CALLS             as in fake_libibverbs.cc
//   FAKE_GPUS              one per GPU, ";" between them: ordering,flush options,dma-buf,peer
//   memory
//                          (attributes 118, 117, 124, 116); "-": the driver does not know it
//   FAKE_GPU_ALLOCATIONS   start:bytes:device:kind, ";" between them; kind: plain, mapped, managed
//   FAKE_EXPORT            CUresult of cuMemGetHandleForAddressRange; 0: works
//   FAKE_CURRENT           CUresult of cuCtxPushCurrent
//
// Built with -DOLD it is a driver without cuMemGetHandleForAddressRange and
// cuFlushGPUDirectRDMAWrites.

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "calls.h"

#define FAKE extern "C" int

namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 1;
constexpr int kInvalidDevice = 101;
constexpr int kInvalidContext = 201;
constexpr int kNotFound = 500;
constexpr std::uint64_t kPageBytes = 4096;

thread_local std::vector<void*> contexts;

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> out;
  for (std::size_t at = 0; !text.empty() && at <= text.size();) {
    const std::size_t end = std::min(text.find(by, at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::vector<std::string> gpus() { return split(fake::knob("FAKE_GPUS", "200,1,1,1"), ';'); }

struct Allocation {
  std::uint64_t start;
  std::uint64_t bytes;
  int device;
  std::string kind;
  bool holds(std::uint64_t address) const { return address >= start && address - start < bytes; }
};

std::vector<Allocation> allocations() {
  std::vector<Allocation> out;
  for (const std::string& text : split(fake::knob("FAKE_GPU_ALLOCATIONS", ""), ';')) {
    const auto parts = split(text, ':');
    out.push_back({std::stoull(parts.at(0), nullptr, 0), std::stoull(parts.at(1), nullptr, 0),
                   std::stoi(parts.at(2)), parts.at(3)});
  }
  return out;
}

bool find(std::uint64_t address, Allocation& out) {
  for (const Allocation& each : allocations()) {
    if (!each.holds(address)) continue;
    out = each;
    return true;
  }
  return false;
}

bool is_device(int number) { return number >= 0 && number < static_cast<int>(gpus().size()); }

}  // namespace

FAKE cuInit(unsigned) { return kSuccess; }
FAKE cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
FAKE cuGetErrorName(int status, const char** name) {
  *name = status == kNotFound ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_OF_THE_FAKE";
  return kSuccess;
}
FAKE cuGetErrorString(int, const char** words) {
  *words = "words of the fake";
  return kSuccess;
}
FAKE cuDeviceGetCount(int* count) {
  *count = static_cast<int>(gpus().size());
  return kSuccess;
}
FAKE cuDeviceGet(int* number, int ordinal) {
  if (!is_device(ordinal)) return kInvalidDevice;
  *number = ordinal;
  return kSuccess;
}
FAKE cuDeviceGetName(char* name, int bytes, int) {
  std::strncpy(name, "Fake GPU", static_cast<std::size_t>(bytes));
  return kSuccess;
}
FAKE cuDeviceGetAttribute(int* value, int attribute, int number) {
  const int order[] = {118, 117, 124, 116};
  const auto answers = split(gpus().at(static_cast<std::size_t>(number)), ',');
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (order[i] != attribute) continue;
    if (answers[i] == "-") return kInvalidValue;
    *value = std::stoi(answers[i]);
    return kSuccess;
  }
  return kInvalidValue;
}

FAKE cuDevicePrimaryCtxRetain(void** context, int number) {
  fake::Call("cuDevicePrimaryCtxRetain").with("device", static_cast<std::uint64_t>(number));
  *context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(number) + 1);
  return kSuccess;
}
FAKE cuDevicePrimaryCtxRelease_v2(int number) {
  fake::Call("cuDevicePrimaryCtxRelease").with("device", static_cast<std::uint64_t>(number));
  return kSuccess;
}
FAKE cuCtxPushCurrent_v2(void* context) {
  const int status = static_cast<int>(fake::number("FAKE_CURRENT", 0));
  if (status == kSuccess) contexts.push_back(context);
  return status;
}
FAKE cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return kInvalidContext;
  *context = contexts.back();
  contexts.pop_back();
  return kSuccess;
}

FAKE cuMemAlloc_v2(std::uint64_t* address, std::size_t) {
  if (contexts.empty()) return kInvalidContext;
  *address = allocations().at(0).start;  // the test's first one is what the next caller gets
  return kSuccess;
}
FAKE cuMemFree_v2(std::uint64_t) {
  if (contexts.empty()) return kInvalidContext;
  fake::Call("cuMemFree");
  return kSuccess;
}

FAKE cuMemGetAddressRange_v2(std::uint64_t* start, std::size_t* bytes, std::uint64_t address) {
  if (contexts.empty()) return kInvalidContext;
  Allocation found;
  if (!find(address, found)) return kNotFound;
  *start = found.start;
  *bytes = found.bytes;
  return kSuccess;
}
FAKE cuMemRetainAllocationHandle(unsigned long long* handle, void* address) {
  Allocation found;
  if (!find(reinterpret_cast<std::uint64_t>(address), found)) return kInvalidValue;
  if (found.kind != "mapped") return kInvalidValue;
  fake::Call("cuMemRetainAllocationHandle");
  *handle = 1;
  return kSuccess;
}
FAKE cuMemRelease(unsigned long long) {
  fake::Call("cuMemRelease");
  return kSuccess;
}
FAKE cuPointerGetAttribute(void* out, int attribute, std::uint64_t address) {
  Allocation found;
  if (!find(address, found)) return kInvalidValue;
  switch (attribute) {
    case 2:  // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
      *static_cast<unsigned*>(out) = 2;
      return kSuccess;
    case 8:  // CU_POINTER_ATTRIBUTE_IS_MANAGED
      *static_cast<int*>(out) = found.kind == "managed" ? 1 : 0;
      return kSuccess;
    case 9:  // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
      *static_cast<int*>(out) = found.device;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}

#ifndef OLD
FAKE cuMemGetHandleForAddressRange(void* out, std::uint64_t address, std::size_t bytes, int type,
                                   unsigned long long flags) {
  fake::Call("cuMemGetHandleForAddressRange")
      .with("address", address)
      .with("bytes", bytes)
      .with("type", static_cast<std::uint64_t>(type))
      .with("flags", flags)
      .with("context", contexts.empty() ? 0 : reinterpret_cast<std::uint64_t>(contexts.back()));
  if (const auto status = fake::number("FAKE_EXPORT", 0)) return static_cast<int>(status);
  if (address % kPageBytes != 0 || bytes % kPageBytes != 0 || type != 1) return kInvalidValue;
  const int buffer = ::memfd_create("fake dma-buf", MFD_CLOEXEC);
  if (buffer < 0 || ::ftruncate(buffer, static_cast<off_t>(bytes)) != 0) return kInvalidValue;
  *static_cast<int*>(out) = buffer;
  return kSuccess;
}
FAKE cuFlushGPUDirectRDMAWrites(int target, int scope) {
  if (contexts.empty()) return kInvalidContext;
  fake::Call("cuFlushGPUDirectRDMAWrites")
      .with("target", static_cast<std::uint64_t>(target))
      .with("scope", static_cast<std::uint64_t>(scope))
      .with("context", reinterpret_cast<std::uint64_t>(contexts.back()));
  return kSuccess;
}
#endif
