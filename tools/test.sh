#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests; the exit status is that of ctest.
# --sanitize: the same tests in a build with AddressSanitizer and UndefinedBehaviorSanitizer (build-asan/).
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/build.sh

folder=build
options=(-DCMAKE_BUILD_TYPE=Release -DFASTKV_TESTS=ON -DFASTKV_TOOLS=ON)
case "${1-}" in
  "") options+=(-DFASTKV_SANITIZE=) ;;
  --sanitize)
    folder=build-asan
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
ctest --test-dir "$folder" --output-on-failure --parallel 2 || status=$?
exit "$status"
