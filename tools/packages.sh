# Sourced by quickstart.sh and test.sh: the Debian 12 packages that the build needs, installed where missing.

# build; libraries; fuzz target (clang, libFuzzer); tests read object files (binutils) and clean up (procps); get-model
FASTKV_PACKAGES="cmake ninja-build g++ pkg-config ccache binutils
  libopenblas0-serial libopenblas-serial-dev libomp-dev libhwloc-dev libxsimd-dev libpcre2-dev nlohmann-json3-dev
  libcli11-dev libgtest-dev libgmock-dev
  clang libclang-rt-14-dev
  ca-certificates python3 python3-pip"

install_packages() {
  local missing="" package
  for package in $FASTKV_PACKAGES; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] ||
      missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing:$missing" >&2
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq >&2
  # shellcheck disable=SC2086  # a list of words on purpose
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2 || {
    echo "apt-get could not install:$missing" >&2
    return 1
  }
}
