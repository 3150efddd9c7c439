# shellcheck shell=bash disable=SC2034
# Sourced by fuzz: the targets, and how each of them is built and run.

FUZZ_TARGETS=(messages sessions receiver sender data_port)
declare -A FUZZ_MEANING=(
  [messages]="the parser of control messages (Python)"
  [sessions]="what decode does with control messages, on a real engine (Python)"
  [receiver]="the receiving end of the tcp transport, against a model (C++)"
  [sender]="the sending end of the tcp transport, whose peer lies (C++)"
  [data_port]="decode's data port: who is let in (C++)"
)
FUZZ_FOLDER=$ROOT/build/fuzz

is_python_target() { [[ -f $ROOT/tests/fuzz/$1.py ]]; }

# What no target may need more of. A finding is kept below build/fuzz/findings.
fuzz_arguments() {
  printf '%s\n' -rss_limit_mb=1024 -timeout=20 -print_final_stats=1 \
    "-artifact_prefix=$FUZZ_FOLDER/findings/$1-"
  if is_python_target "$1"; then
    printf '%s\n' -max_len=16384
  else
    printf '%s\n' -max_len=4096 "-dict=$ROOT/tests/fuzz/frames.dict"
  fi
}

# run_target TARGET ARGUMENT...: libFuzzer's own arguments and folders.
run_target() {
  local target=$1 arguments
  shift
  mapfile -t arguments < <(fuzz_arguments "$target")
  if is_python_target "$target"; then
    # By its own name: libFuzzer starts it again to merge.
    PATH=$VENV/bin:$PATH PYTHONPATH=$ROOT "$ROOT/tests/fuzz/$target.py" "${arguments[@]}" "$@"
  else
    # The defaults keep 256 MB of freed memory, and a long stack for every allocation.
    ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=${FUZZ_CONTEXT:-3} \
      "$FUZZ_FOLDER/bin/$target" "${arguments[@]}" "$@"
  fi
}

ensure_fuzz() {
  local target native=() has_python=false
  for target in "$@"; do
    if is_python_target "$target"; then has_python=true; else native+=("$target"); fi
  done
  mkdir -p "$FUZZ_FOLDER/findings"
  if $has_python; then ensure_atheris; fi
  if [[ ${#native[@]} -gt 0 ]]; then
    ensure_packages "${FUZZ_PACKAGES[@]}"
    say "building ${native[*]} with sanitizers"
    "$ROOT/tests/fuzz/build" "${native[@]}"
  fi
}

# atheris comes as wheels for some Pythons only; building it needs a clang of its own.
ensure_atheris() {
  ensure_project
  local version
  version=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  case $version in
    3.11 | 3.12 | 3.13) ;;
    *) die "atheris has no wheel for Python $version of .venv, only for 3.11 to 3.13: the targets \
messages and sessions cannot run. Install one of these, remove .venv and try again" ;;
  esac
  ensure_project fuzz
  "$VENV/bin/python" -c 'import atheris' ||
    die "atheris was installed and cannot be imported: the targets messages and sessions cannot run"
}
