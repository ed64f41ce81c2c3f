#!/usr/bin/env bash
# From a fresh Debian 12 to an answer: installs what is missing, builds, brings a small model (or takes -m FILE.gguf),
# and asks one question about a long document under full attention and under FastKV, side by side.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/build.sh

model=
while [ $# -gt 0 ]; do
  case "$1" in
    -m | --model)
      [ $# -ge 2 ] || { say "$1 needs a value"; exit 2; }
      model=$2
      shift 2
      ;;
    *)
      echo "usage: tools/quickstart.sh [-m FILE.gguf]" >&2
      exit 2
      ;;
  esac
done
[ -z "$model" ] || [ -f "$model" ] || { say "$model: no such file"; exit 1; }

# 4,040 tokens; the answer stands near the end ("written by James Hacker": Gnomovision)
document=/usr/share/common-licenses/GPL-2
question='What is the name of the program written by James Hacker?'
[ -f "$document" ] || { say "$document is missing (package base-files)"; exit 1; }

install_packages
build build fastkv-run -DCMAKE_BUILD_TYPE=Release
[ -n "$model" ] || model=$(tools/get-model) || { say "no model; pass one of your own: tools/quickstart.sh -m FILE.gguf"; exit 1; }

command=(build/bin/fastkv-run -m "$model" -f "$document" -q "$question" --compare full,fastkv -n 48)
printf '\n$' >&2
printf ' %q' "${command[@]}" >&2
printf '\n' >&2
exec "${command[@]}"
