// A libnvrtc that compiles nothing: what it makes is the source, which the fake driver recognises.
#include <cstddef>
#include <cstring>
#include <string>

#include "fake_cuda/call.h"

struct _nvrtcProgram {
  std::string source;
  std::string image;
  std::string log;
};

using Program = _nvrtcProgram*;
using Result = int;

namespace {

constexpr Result kInvalidInput = 3;
constexpr Result kInvalidProgram = 4;
constexpr Result kCompilation = 6;
constexpr int kArchitectures[] = {75, 80, 86, 89, 90, 100};

Result size_of(Program program, const std::string _nvrtcProgram::* text, std::size_t* out) {
  if (program == nullptr) return kInvalidProgram;
  *out = (program->*text).size() + 1;
  return 0;
}

Result copy_of(Program program, const std::string _nvrtcProgram::* text, char* out) {
  if (program == nullptr) return kInvalidProgram;
  std::memcpy(out, (program->*text).c_str(), (program->*text).size() + 1);
  return 0;
}

}  // namespace

EXPORTED const char* nvrtcGetErrorString(Result result) {
  switch (result) {
    case 0:
      return "NVRTC_SUCCESS";
    case kInvalidInput:
      return "NVRTC_ERROR_INVALID_INPUT";
    case kInvalidProgram:
      return "NVRTC_ERROR_INVALID_PROGRAM";
    case kCompilation:
      return "NVRTC_ERROR_COMPILATION";
    default:
      return "NVRTC_ERROR unknown";
  }
}

EXPORTED Result nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return 0;
}

EXPORTED Result nvrtcGetNumSupportedArchs(int* out) {
  *out = static_cast<int>(std::size(kArchitectures));
  return 0;
}

EXPORTED Result nvrtcGetSupportedArchs(int* out) {
  std::copy(std::begin(kArchitectures), std::end(kArchitectures), out);
  return 0;
}

EXPORTED Result nvrtcCreateProgram(Program* out, const char* source, const char*, int,
                                   const char* const*, const char* const*) {
  if (out == nullptr || source == nullptr) return kInvalidInput;
  *out = new _nvrtcProgram{source, "", ""};
  return 0;
}

EXPORTED Result nvrtcDestroyProgram(Program* program) {
  if (program == nullptr || *program == nullptr) return kInvalidProgram;
  delete *program;
  *program = nullptr;
  return 0;
}

EXPORTED Result nvrtcCompileProgram(Program program, int, const char* const*) {
  if (program == nullptr) return kInvalidProgram;
  if (program->source.find("__global__") == std::string::npos) {
    program->log = "FAKE NVRTC: no kernel in the source";
    return kCompilation;
  }
  program->image = "FAKE CUBIN\n" + program->source;
  return 0;
}

EXPORTED Result nvrtcGetProgramLogSize(Program program, std::size_t* out) {
  return size_of(program, &_nvrtcProgram::log, out);
}
EXPORTED Result nvrtcGetProgramLog(Program program, char* out) {
  return copy_of(program, &_nvrtcProgram::log, out);
}
EXPORTED Result nvrtcGetCUBINSize(Program program, std::size_t* out) {
  return size_of(program, &_nvrtcProgram::image, out);
}
EXPORTED Result nvrtcGetCUBIN(Program program, char* out) {
  return copy_of(program, &_nvrtcProgram::image, out);
}
EXPORTED Result nvrtcGetPTXSize(Program program, std::size_t* out) {
  return size_of(program, &_nvrtcProgram::image, out);
}
EXPORTED Result nvrtcGetPTX(Program program, char* out) {
  return copy_of(program, &_nvrtcProgram::image, out);
}
