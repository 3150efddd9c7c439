#include "cuda/nvrtc.h"

#include <dlfcn.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"

namespace rdma_kv::cuda {
namespace {

using Program = struct _nvrtcProgram*;
using Result = int;  // nvrtcResult

// The sonames in use, newest first.
constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"};

std::mutex mutex;
std::vector<std::string>& candidates() {
  static auto& paths = *new std::vector<std::string>;
  return paths;
}

struct Compiler {
  const char* (*get_error_string)(Result);
  Result (*create_program)(Program*, const char*, const char*, int, const char* const*,
                           const char* const*);
  Result (*destroy_program)(Program*);
  Result (*compile_program)(Program, int, const char* const*);
  Result (*get_log_size)(Program, std::size_t*);
  Result (*get_log)(Program, char*);
  Result (*get_cubin_size)(Program, std::size_t*);
  Result (*get_cubin)(Program, char*);
  Result (*get_ptx_size)(Program, std::size_t*);
  Result (*get_ptx)(Program, char*);
  Result (*get_num_supported_archs)(int*);
  Result (*get_supported_archs)(int*);

  bool find_in(void* library) {
    const auto find = [&](const char* name, auto& out) {
      out = reinterpret_cast<std::remove_reference_t<decltype(out)>>(::dlsym(library, name));
      return out != nullptr;
    };
    return find("nvrtcGetErrorString", get_error_string) &&
           find("nvrtcCreateProgram", create_program) &&
           find("nvrtcDestroyProgram", destroy_program) &&
           find("nvrtcCompileProgram", compile_program) &&
           find("nvrtcGetProgramLogSize", get_log_size) && find("nvrtcGetProgramLog", get_log) &&
           find("nvrtcGetCUBINSize", get_cubin_size) && find("nvrtcGetCUBIN", get_cubin) &&
           find("nvrtcGetPTXSize", get_ptx_size) && find("nvrtcGetPTX", get_ptx) &&
           find("nvrtcGetNumSupportedArchs", get_num_supported_archs) &&
           find("nvrtcGetSupportedArchs", get_supported_archs);
  }
};

// Never closed: who has loaded it (torch) may use it too.
void* open_library() {
  for (const char* name : kNames) {  // what the process has loaded already fits its driver
    if (void* const library = ::dlopen(name, RTLD_NOW | RTLD_NOLOAD)) return library;
  }
  for (const std::string& path : candidates()) {
    if (void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  }
  for (const char* name : kNames) {
    if (void* const library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw Error(Errc::kUnavailable,
              "the copy kernel has to be compiled, and there is no libnvrtc.so.13, .12 or .11.2; "
              "install the CUDA toolkit, or `python -m pip install nvidia-cuda-nvrtc` (for CUDA "
              "12: nvidia-cuda-nvrtc-cu12)");
}

const Compiler& compiler() {
  static Compiler found{};
  static bool is_found = false;
  if (is_found) return found;
  if (!found.find_in(open_library())) {
    throw Error(Errc::kUnavailable,
                "libnvrtc lacks a function that is needed; CUDA 11.2 or later is");
  }
  is_found = true;
  return found;
}

void check(Result result, const char* call) {
  if (result == 0) return;
  throw Error(Errc::kUnavailable, join(call, ": ", compiler().get_error_string(result)));
}

struct OwnedProgram {
  Program raw = nullptr;
  ~OwnedProgram() { (void)compiler().destroy_program(&raw); }
};

std::string log_of(Program program) {
  std::size_t bytes = 0;
  if (compiler().get_log_size(program, &bytes) != 0 || bytes < 2) return "no log";
  std::string text(bytes, '\0');
  if (compiler().get_log(program, text.data()) != 0) return "no log";
  text.resize(bytes - 1);
  return text;
}

}  // namespace

void set_nvrtc_candidates(std::vector<std::string> paths) {
  const std::lock_guard lock(mutex);
  candidates() = std::move(paths);
}

std::vector<char> compile(const char* source, int major, int minor) {
  const std::lock_guard lock(mutex);
  const Compiler& nvrtc = compiler();
  int count = 0;
  check(nvrtc.get_num_supported_archs(&count), "nvrtcGetNumSupportedArchs");
  std::vector<int> known(static_cast<std::size_t>(std::max(count, 0)));
  if (!known.empty()) check(nvrtc.get_supported_archs(known.data()), "nvrtcGetSupportedArchs");
  const int wanted = major * 10 + minor;
  int best = 0;
  for (const int arch : known) {
    if (arch <= wanted) best = std::max(best, arch);
  }
  if (best == 0) {
    throw Error(Errc::kUnavailable, join("this libnvrtc compiles for no device like ours (compute "
                                         "capability ",
                                         major, ".", minor, ")"));
  }
  const bool is_native = best == wanted;
  const std::string arch = join("--gpu-architecture=", is_native ? "sm_" : "compute_", best);
  const char* const options[] = {arch.c_str(), "--std=c++17"};
  OwnedProgram program;
  check(nvrtc.create_program(&program.raw, source, "copy_kernel.cu", 0, nullptr, nullptr),
        "nvrtcCreateProgram");
  if (nvrtc.compile_program(program.raw, 2, options) != 0) {
    throw Error(Errc::kUnavailable, join("nvrtcCompileProgram: ", log_of(program.raw)));
  }
  std::size_t bytes = 0;
  check((is_native ? nvrtc.get_cubin_size : nvrtc.get_ptx_size)(program.raw, &bytes),
        "nvrtcGetCUBINSize");
  std::vector<char> image(bytes);
  check((is_native ? nvrtc.get_cubin : nvrtc.get_ptx)(program.raw, image.data()), "nvrtcGetCUBIN");
  return image;
}

}  // namespace rdma_kv::cuda
