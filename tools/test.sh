#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests; the exit status is that of ctest.
# The build with CUDA (build-cuda/) has to compile and link too; its tests skip where there is no GPU. FASTKV_NO_CUDA=1
# leaves it out.
# --sanitize: the same tests in a build with AddressSanitizer and UndefinedBehaviorSanitizer (build-asan/), without CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/build.sh

folder=build
cuda=${FASTKV_NO_CUDA:+no}
options=(-DCMAKE_BUILD_TYPE=Release -DFASTKV_TESTS=ON -DFASTKV_TOOLS=ON)
case "${1-}" in
  "") options+=(-DFASTKV_SANITIZE=) ;;
  --sanitize)
    folder=build-asan
    cuda=no
    options+=(-DFASTKV_SANITIZE=address,undefined)
    export LSAN_OPTIONS=${LSAN_OPTIONS-suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0}
    export ASAN_OPTIONS=${ASAN_OPTIONS-detect_leaks=1:strict_string_checks=1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS-print_stacktrace=1}
    ;;
  *)
    echo "usage: tools/test.sh [--sanitize]" >&2
    exit 2
    ;;
esac

install_packages
# without it the test of plot.py is skipped, and ctest says so
FASTKV_PACKAGES=python3-matplotlib install_packages || say "going on without python3-matplotlib"
build "$folder" all "${options[@]}"
# without the model the reference traces of the real model are skipped, and ctest says so
tools/get-model > /dev/null || say "going on without the model"
status=0
if [ -z "$cuda" ]; then
  # without a compiler the test of that build is skipped, and ctest says so
  nvcc=$(cuda_compiler) || { say "going on without CUDA"; cuda=no; }
fi
if [ -z "$cuda" ]; then
  build build-cuda "fastkv-run fastkv-bench fastkv-eval test_cuda_device" "${options[@]}" -DFASTKV_CUDA=ON \
    -DCMAKE_CUDA_COMPILER="$nvcc"
  ctest --test-dir build-cuda --label-regex gpu --output-on-failure || status=$?
fi
ctest --test-dir "$folder" --output-on-failure --parallel 2 || status=$?
exit "$status"
