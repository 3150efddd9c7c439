# shellcheck shell=bash disable=SC2034
# Sourced by check and fix: the tools that look at C++, and the one at everything.

# Prints the files of the tree that match, each ended by NUL; neither ignored nor deleted ones.
tree_files() {
  local file
  git ls-files -z --cached --others --exclude-standard -- "$@" |
    while IFS= read -r -d '' file; do [[ ! -f $file ]] || printf '%s\0' "$file"; done
}

# each_cpp_file COMMAND...: runs it with all C++ files of the tree.
each_cpp_file() { tree_files '*.cc' '*.h' '*.cu' | xargs -0 --no-run-if-empty "$@"; }

# A path that exists on one machine only helps nobody who clones this.
no_private_paths() {
  local found
  found=$(git grep -nE '(^|[^A-Za-z0-9_.})/-])/(hom[e]|roo[t]|wor[k]|far[m]|User[s])/|fil[e]:///' -- . ||
    true)
  [[ -z $found ]] || { printf '%s\n' "$found"; return 1; }
}

run_clang_tidy() {
  local includes
  read -ra includes < <("$VENV/bin/python" -m pybind11 --includes)
  tree_files 'src/*.cc' |
    xargs -0 -P "${MAX_JOBS:-2}" -I '{}' clang-tidy --quiet '{}' -- \
      -std=c++20 -Isrc -DRDMA_KV_HAVE_VERBS=1 "${includes[@]}"
}
