# shellcheck shell=bash disable=SC2034
# Sourced: which system packages each job needs, and how they get installed.

BUILD_PACKAGES=(g++ ccache git libibverbs-dev python3 python3-venv python3-dev)
VM_PACKAGES=(
  qemu-system-x86 linux-image-amd64 busybox-static kmod file # the guest; virtme-ng asks `file`
  rdma-core ibverbs-providers ibverbs-utils perftest             # its RDMA tools
  python3-pyverbs python3-zmq python3-msgpack python3-numpy      # the independent peer
  iproute2 iperf3                                               # links, rates
)
# libFuzzer and the sanitizers' runtimes come with libclang-rt; llvm names the functions in a stack.
FUZZ_PACKAGES=(clang-14 libclang-rt-14-dev llvm-14 ccache)

# ensure_packages NAME...: installs what is missing when root, else says what to ask for.
ensure_packages() {
  if ! have dpkg-query; then
    warn "not a Debian: cannot see whether these are installed: $*"
    return
  fi
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed ||
      missing+=("$name")
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  if [[ $(id -u) -ne 0 ]]; then
    die "system packages are missing; run as root, or install them first:
  apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o Acquire::Retries=3 update
  apt-get -qq -o Acquire::Retries=3 -y --no-install-recommends install "${missing[@]}" >/dev/null
}
