#!/usr/bin/env bash
# Installs what building and testing need and is not there yet: Debian packages, and libtorch from the pip wheel in .venv.
# Touches no network when nothing is missing. On failure: one line that says what is missing and how to get it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly torch_version=2.13.0
readonly oldest_torch=2.11

say() { echo "deps: $*"; }
fail() {
  echo "deps: $*" >&2
  exit 1
}

# Debian packages, one a line; of alternatives (a|b) the first is installed, any counts. A name may be a pattern.
readonly packages=(
  g++ cmake ninja-build pkg-config python3-venv
  clang 'libclang-rt-dev|libclang-rt-[0-9]*-dev' clang-format
  libcli11-dev nlohmann-json3-dev libgtest-dev libgmock-dev libbenchmark-dev
  libopenmpi-dev openmpi-bin
  libpcre2-dev libutf8proc-dev xz-utils gnuplot-nox
)

missing_packages() {
  local installed entry name
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]//|*/}" 'libclang-rt-*' 2>/dev/null |
    awk '$2 == "installed" { print $1 }' || true)
  for entry in "${packages[@]}"; do
    local found=no
    while IFS= read -r name; do
      # shellcheck disable=SC2053  # the right side is a pattern
      for alternative in ${entry//|/ }; do [[ $name == $alternative ]] && found=yes; done
    done <<<"$installed"
    [[ $found == yes ]] || echo "${entry%%|*}"
  done
}

install_packages() {
  command -v dpkg-query >/dev/null ||
    fail "this is neither Debian nor Ubuntu: install by hand what these packages hold: ${packages[*]%%|*}"
  local missing as_root=()
  missing=$(missing_packages | paste -sd ' ')
  [[ -n $missing ]] || return 0
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null ||
      fail "missing Debian packages, and neither root nor sudo to install them; as root: apt-get install $missing"
    as_root=(sudo)
  fi
  say "installing $missing"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      -o DPkg::Lock::Timeout=120 $missing; } >"$log" 2>&1 </dev/null; then
    local reason
    reason=$(grep -m1 -E '^E:|sudo:' "$log" || tail -n 1 "$log")
    rm -f "$log"
    fail "apt-get could not install $missing ($reason); see that the package sources are reachable, then: apt-get install $missing"
  fi
  rm -f "$log"
}

# The folder of a usable libtorch at or above $1, if any: a libtorch, or torch.utils.cmake_prefix_path.
torch_at() {
  local folder
  for folder in "$1" "$1/../.."; do
    if [[ -f $folder/include/ATen/core/Tensor.h && -f $folder/lib/libtorch_cpu.so ]]; then
      (cd "$folder" && pwd -P)
      return 0
    fi
  done
  return 1
}

# The folder of the torch that python $1 would import; importing it would take seconds.
torch_of_python() {
  local folder
  folder=$("$1" -c 'import importlib.util as u, os, sys
sys.path[:] = [p for p in sys.path if p]
print(os.path.dirname(u.find_spec("torch").origin))' 2>/dev/null) || return 1
  torch_at "$folder"
}

# Whether the torch in folder $1 is recent enough; one without version information is taken on trust.
torch_is_recent() {
  local found
  found=$(sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py" 2>/dev/null || true)
  [[ -n $found ]] || found=$(sed -n 's/^\([0-9.]*\).*/\1/p' "$1/build-version" 2>/dev/null || true)
  [[ -z $found || $(printf '%s\n' "$oldest_torch" "$found" | sort -V | head -n 1) == "$oldest_torch" ]] ||
    fail "the torch in $1 is version $found: at least $oldest_torch is needed; update it, or take it off CMAKE_PREFIX_PATH or out of the active python"
}

# Whether pip got to the end of installing the torch in folder $1: it writes the list of files last.
is_whole() {
  compgen -G "$1/../torch-*.dist-info/RECORD" >/dev/null
}

find_torch() {
  local prefix found
  local IFS=:
  for prefix in ${CMAKE_PREFIX_PATH:-}; do
    if found=$(torch_at "$prefix"); then
      torch_is_recent "$found"
      return 0
    fi
  done
  if found=$(torch_of_python python3); then
    torch_is_recent "$found"
    return 0
  fi
  [[ -x .venv/bin/python ]] && found=$(torch_of_python .venv/bin/python) && is_whole "$found"
}

install_torch() {
  find_torch && return 0
  local log python reason=""
  log=$(mktemp)
  # The active python may have no wheel of this torch, or no venv: then the system's own is tried.
  for python in python3 /usr/bin/python3; do
    command -v "$python" >/dev/null || continue
    say "installing torch $torch_version into .venv with $("$python" --version)"
    rm -rf .venv
    if "$python" -m venv .venv >"$log" 2>&1 &&
      .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
        "torch==$torch_version" >"$log" 2>&1 </dev/null; then
      rm -f "$log"
      torch_of_python .venv/bin/python >/dev/null ||
        fail "the torch that pip installed in .venv has no C++ headers: make a full wheel of torch $torch_version reachable for pip"
      return 0
    fi
    reason=$(grep -m1 -E '^ERROR|Error' "$log" || tail -n 1 "$log")
  done
  rm -rf .venv "$log"
  fail "pip could not install torch==$torch_version (${reason:-no python3}); make a wheel reachable for pip, or name a libtorch of $oldest_torch or later in CMAKE_PREFIX_PATH"
}

install_packages
install_torch
