# Sourced by quickstart.sh and test.sh: packages, the build, the small model. The caller stands in the project's root.

# build; libraries (boost: the fibers of the emulated GPU in tests); the fuzz target (clang, libFuzzer); tests that read
# object files (binutils); get-model (pip)
FASTKV_PACKAGES="cmake ninja-build g++ pkg-config ccache binutils
  libopenblas-dev libopenblas0-pthread libomp-dev libhwloc-dev libxsimd-dev libpcre2-dev nlohmann-json3-dev
  libcli11-dev libgtest-dev libgmock-dev libboost-context-dev
  clang libclang-rt-14-dev
  ca-certificates python3 python3-pip"

say() { echo "$(basename "$0"): $*" >&2; }

install_packages() {
  local missing="" package root=""
  for package in $FASTKV_PACKAGES; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] ||
      missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || { say "not root and no sudo: apt-get install$missing"; return 1; }
    root=sudo
  fi
  say "installing$missing"
  # shellcheck disable=SC2086  # lists of words on purpose
  $root apt-get update -qq >&2 &&
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null || {
    say "apt-get could not install$missing"
    return 1
  }
}

# build FOLDER TARGETS [CMAKE OPTION…]: configures and builds; the programs land in FOLDER/bin.
build() {
  local folder=$1 targets=$2 jobs memory
  shift 2
  # the kernels' templates take more than a gigabyte each to compile
  jobs=$(nproc)
  memory=$(awk '/MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  [ "$jobs" -le "$memory" ] || jobs=$((memory > 0 ? memory : 1))
  say "building in $folder"
  CXX=${CXX:-g++} cmake -S . -B "$folder" -G Ninja "$@" > /dev/null
  # shellcheck disable=SC2086  # a list of words on purpose
  cmake --build "$folder" --target $targets --parallel "$jobs" >&2
}

# cuda_compiler: nvcc 13 of the machine, or the one that tools/cuda-toolkit brings.
cuda_compiler() {
  local nvcc toolkit
  if nvcc=$(command -v nvcc) && "$nvcc" --version | grep -q 'release 13'; then
    echo "$nvcc"
  else
    toolkit=$(tools/cuda-toolkit) && echo "$toolkit/bin/nvcc"
  fi
}
