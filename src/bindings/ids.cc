#include "bindings/ids.h"

#include <cstring>
#include <string>

#include "base/error.h"

namespace rdma_kv::bindings {
namespace py = pybind11;
namespace {

// The struct-module code of a native, signed integer of 4 or 8 bytes; see Python's `struct`.
bool is_signed_integer(const Py_buffer& buffer) {
  const char* format = buffer.format != nullptr ? buffer.format : "B";
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  const bool is_signed = std::strlen(format) == 1 && std::strchr("ilqn", *format) != nullptr;
  return is_signed && (buffer.itemsize == 4 || buffer.itemsize == 8);
}

std::string shape_of(const Py_buffer& buffer) {
  std::string shape = "(";
  for (int i = 0; i < buffer.ndim; ++i) {
    shape += (i > 0 ? ", " : "") + std::to_string(buffer.shape[i]);
  }
  return shape + ")";
}

std::int64_t id_of(py::handle item, std::size_t index, const char* side) {
  if (PyBool_Check(item.ptr()) || PyIndex_Check(item.ptr()) == 0) {
    throw Error(Errc::kType, join(side, " block id at index ", index, " is a ",
                                  Py_TYPE(item.ptr())->tp_name, "; block ids are integers"));
  }
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(item.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const long long id = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0) {
    throw Error(Errc::kValue,
                join(side, " block id at index ", index, " is ",
                     py::str(number).cast<std::string>(), ", out of range; nothing was written"));
  }
  return id;
}

}  // namespace

IdList::IdList(py::handle ids, const char* side) {
  if (PyList_Check(ids.ptr()) || PyTuple_Check(ids.ptr())) {
    take_sequence(ids, side);
  } else if (PyObject_CheckBuffer(ids.ptr()) != 0) {
    take_buffer(ids, side);
  } else {
    throw Error(Errc::kType, join(side, " block ids are a ", Py_TYPE(ids.ptr())->tp_name,
                                  "; pass a list, a tuple or an int32/int64 array"));
  }
}

IdList::~IdList() {
  if (is_borrowed_) PyBuffer_Release(&buffer_);
}

void IdList::take_sequence(py::handle ids, const char* side) {
  const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(ids.ptr()));
  PyObject** const items = PySequence_Fast_ITEMS(ids.ptr());
  copy_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (PyLong_CheckExact(items[i])) {
      int overflow = 0;
      const long long id = PyLong_AsLongLongAndOverflow(items[i], &overflow);
      if (overflow == 0) {
        copy_.push_back(id);
        continue;
      }
    }
    copy_.push_back(id_of(items[i], i, side));
  }
}

void IdList::take_buffer(py::handle ids, const char* side) {
  if (PyObject_GetBuffer(ids.ptr(), &buffer_, PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
    throw py::error_already_set();
  }
  is_borrowed_ = true;
  const auto refuse = [&](Errc code, const std::string& what) {
    PyBuffer_Release(&buffer_);
    is_borrowed_ = false;
    throw Error(code, what);
  };
  if (!is_signed_integer(buffer_)) {
    refuse(Errc::kType,
           join(side, " block ids have format '", buffer_.format != nullptr ? buffer_.format : "B",
                "' of ", buffer_.itemsize, " bytes; int32 or int64 is needed"));
  }
  if (buffer_.ndim != 1) {
    refuse(Errc::kValue,
           join(side, " block ids have shape ", shape_of(buffer_), "; a 1-D array is needed"));
  }
  if (buffer_.strides[0] == buffer_.itemsize) return;
  const auto* const bytes = static_cast<const char*>(buffer_.buf);
  for (Py_ssize_t i = 0; i < buffer_.shape[0]; ++i) {
    const char* const at = bytes + i * buffer_.strides[0];
    std::int32_t narrow = 0;
    std::int64_t wide = 0;
    if (buffer_.itemsize == 4) {
      std::memcpy(&narrow, at, sizeof narrow);
      wide = narrow;
    } else {
      std::memcpy(&wide, at, sizeof wide);
    }
    copy_.push_back(wide);
  }
  PyBuffer_Release(&buffer_);
  is_borrowed_ = false;
}

kv::BlockIds IdList::view() const noexcept {
  if (!is_borrowed_) return std::span<const std::int64_t>(copy_);
  const auto count = static_cast<std::size_t>(buffer_.shape[0]);
  if (buffer_.itemsize == 4) {
    return std::span(static_cast<const std::int32_t*>(buffer_.buf), count);
  }
  return std::span(static_cast<const std::int64_t*>(buffer_.buf), count);
}

}  // namespace rdma_kv::bindings
