# shellcheck shell=bash disable=SC2034
# Sourced: the virtual environment of the checkout, .venv, with the project installed in it.
#
# Each step leaves a stamp whose content is what it was made from; a second run compares and returns.

# Prints the Python to make the environment with: 3.11 where there is one, else any from 3.10 on.
find_python() {
  local name
  for name in /usr/bin/python3.11 python3.11 /usr/bin/python3 python3; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
    then
      echo "$name"
      return
    fi
  done
  die "no Python of at least 3.10 that has venv and ensurepip was found"
}

ensure_venv() {
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
  local python
  python=$(find_python)
  say "creating .venv with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
}

pip_install() {
  "$VENV/bin/python" -m pip --quiet --disable-pip-version-check install \
    --constraint "$ROOT/scripts/lib/constraints.txt" "$@"
}

# once NAME KEY COMMAND...: runs the command unless it has succeeded before with the same key.
once() {
  local stamp=$STAMPS/$1 key=$2
  shift 2
  [[ -f $stamp && $(<"$stamp") == "$key" ]] && return
  rm -f "$stamp"
  "$@"
  mkdir -p "$STAMPS"
  printf '%s' "$key" >"$stamp"
}

digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

install_extra() {
  say "installing rdma_kv[$1] into .venv"
  pip_install --no-build-isolation --editable "${ROOT}[$1]"
}

compile_core() {
  say "building rdma_kv._core${RDMA_KV_SANITIZE:+ with $RDMA_KV_SANITIZE sanitizers}"
  (cd "$ROOT" && "$VENV/bin/python" setup.py --quiet build_ext --inplace)
}

# ensure_project EXTRA...: the project, editable, with these extras, and its extension up to date.
ensure_project() {
  ensure_packages "${BUILD_PACKAGES[@]}"
  mkdir -p "$ROOT/build"
  (
    flock 9 # two scripts may start at once
    ensure_venv
    local recipe sources extra
    recipe=$(cd "$ROOT" && digest pyproject.toml setup.py scripts/lib/constraints.txt)
    once build-tools "$recipe" pip_install --upgrade 'setuptools>=77' wheel pybind11
    for extra in "$@"; do once "extra-$extra" "$recipe" install_extra "$extra"; done
    sources=$(cd "$ROOT" && find src setup.py -type f -name '*.*' | LC_ALL=C sort | xargs cat | digest)
    once core "$sources ${RDMA_KV_SANITIZE:-}" compile_core
  ) 9>"$ROOT/build/install.lock"
}

# The tool that boots the virtual machine. It needs neither the project nor a compiler.
ensure_virtme() {
  mkdir -p "$ROOT/build"
  (
    flock 9
    ensure_venv
    once virtme "$(digest "$ROOT/scripts/lib/constraints.txt")" pip_install virtme-ng
  ) 9>"$ROOT/build/install.lock"
}
