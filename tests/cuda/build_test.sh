#!/usr/bin/env bash
# The programs of the build with CUDA: they run without a GPU, say what they have, and refuse the device in one line.
# Usage: build_test.sh BUILD-FOLDER MODEL. Exit 77: there is no such build.
set -u
run=$1/bin/fastkv-run model=$2
[ -x "$run" ] || { echo "skipped: no $run (tools/test.sh builds it where it finds or can bring nvcc)"; exit 77; }
[ -r "$model" ] || { echo "skipped: no $model"; exit 77; }
fail() { echo "$*"; exit 1; }

version=$("$run" --version) || fail "--version: exit status $?"
grep -q '^cuda: ' <<< "$version" || fail "--version does not name CUDA: $version"
"$run" -m "$model" -p 'Once upon a time' -n 4 --temp 0 --device cpu > /dev/null 2>&1 || fail "--device cpu: exit status $?"
for section in sm_80 sm_90a sm_100a; do
  grep -qa "$section" "$run" || fail "no machine code for $section in $run"
done
if ! grep -q '^cuda: no device' <<< "$version"; then
  "$run" -m "$model" -p 'Once upon a time' -n 4 --temp 0 --device cuda > /dev/null 2>&1 || fail "--device cuda: $?"
else
  error=$("$run" -m "$model" -p 'Once upon a time' -n 4 --device cuda 2>&1 > /dev/null)
  status=$?
  [ "$status" = 1 ] || [ "$status" = 2 ] || fail "--device cuda without a device: exit status $status"
  [ "$(grep -c . <<< "$error")" = 1 ] || fail "expected one line, found: $error"
fi
