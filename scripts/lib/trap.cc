// Known faults. scripts/sanitize commits each of them before it believes in a run without reports.
#include <thread>

namespace {

volatile int zero = 0;
int shared = 0;

}  // namespace

extern "C" {

void overflow() {
  volatile int* volatile four = new int[4];  // volatile: no other sanitizer knows its size
  four[4 + zero] = 1;
  delete[] four;
}

void leak() {
  static int* volatile kept = nullptr;
  for (int i = 0; i < 64; ++i) kept = new int[16];  // several: a stale register may hold the last
  kept = nullptr;
}

void undefined() { zero = 0x7fffffff + (1 + zero); }

void race() {
  std::thread other([] { ++shared; });
  ++shared;
  other.join();
}
}
