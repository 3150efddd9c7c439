# shellcheck shell=bash disable=SC2034
# Sourced by every script: where the checkout is, and how to speak to the reader.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
STAMPS=$VENV/stamps # inside the venv, so that they vanish with what they vouch for

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Prints the comment at the top of the calling script, which is its manual.
print_help() {
  sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"
}

have() { command -v "$1" >/dev/null 2>&1; }
