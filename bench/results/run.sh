#!/usr/bin/env bash
# Runs every evaluation of the results page and draws its figures; what is finished is not run again.
#
# usage: bench/results/run.sh MODEL.gguf NOVEL.txt OTHER_NOVEL.txt LONGBENCH OUT [PART…]
#   LONGBENCH  a folder in LongBench's layout with data/multi_news.jsonl
#   OUT        gets a JSON file, the printed table and the figures of each evaluation
#   PART       scores, settings, analyses, times, figures (default: all). Nothing else should run beside `times`.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '4,7s/^# //p' "$0" >&2; exit 2; }
model=$1 novel=$2 other=$3 longbench=$4 out=$5
shift 5
parts=" ${*:-scores settings analyses times figures} "
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"

# evaluate NAME SUBCOMMAND OPTION…
evaluate() {
  local name=$1 subcommand=$2
  shift 2
  grep -qs '^ "complete": true' "$out/$name.json" ||
    "$root/build/bin/fastkv-eval" "$subcommand" -m "$model" --resume -o "$out/$name.json" "$@" > "$out/$name.txt"
}

# questions SUFFIX OPTION…: the four evaluations of the tables
questions() {
  local suffix=$1
  shift
  evaluate "niah-$suffix" niah -t 1 --lengths 1024,2048 --samples 2 "$@"
  evaluate "kld-$suffix" kld -t 1 -f "$novel" -c 2048 --limit 3 "$@"
  evaluate "ruler-$suffix" ruler -t 1 --tasks niah_single_1,niah_single_2,niah_multikey_1,niah_multivalue,fwe \
    --lengths 1024,2048 --samples 6 --haystack "$other" "$@"
  evaluate "multi_news-$suffix" longbench -t 1 --data "$longbench" --datasets multi_news "$@"
}

if [[ $parts == *" scores "* ]]; then questions methods --method all; fi
# settings NAME: FastKV's flags beside the paper's
settings=(accurate kernel retention rate layer window)
flags_of() {
  case $1 in
    accurate) echo --preset accurate ;;
    retention) echo --retention 0.2 ;;
    rate) echo --tsp-rate 0.4 --retention 0.4 ;;
    window) echo --window 32 ;;
    kernel) echo --kernel 15 ;;
    layer) echo --tsp-layer 20 ;;
  esac
}
if [[ $parts == *" settings "* ]]; then
  # shellcheck disable=SC2046  # flags are words
  for one in "${settings[@]}"; do questions "$one" --method fastkv $(flags_of "$one"); done
fi
if [[ $parts == *" analyses "* ]]; then
  evaluate overlap overlap -f "$novel" --length 2048 --limit 8
  evaluate hidden hidden -f "$novel" --length 2048
  evaluate choose-tsp choose-tsp -f "$novel" --length 2048 --max-layer 22
fi
if [[ $parts == *" times "* ]]; then
  evaluate ablation ablation -f "$novel" --length 2048 --tsp-layers 4,9,14,20,26 --limit 4
  evaluate latency latency -p 1024,2048,4096,8000 -n 64 -r 3 --method full,fastkv,snapkv,h2o,gemfilter,pyramidinfer
  # shellcheck disable=SC2046
  for one in "${settings[@]}"; do
    evaluate "latency-$one" latency -p 2048 -n 64 -r 9 --method full,fastkv $(flags_of "$one")
  done
fi
if [[ $parts == *" figures "* ]]; then
  for file in "$out"/*-methods.json "$out"/overlap.json "$out"/hidden.json "$out"/choose-tsp.json \
    "$out"/ablation.json "$out"/latency.json; do
    "${PYTHON:-python3}" "$root/tools/plot.py" "$file" -o "$out"
  done
  for kind in niah ruler; do  # settings of fastkv beside one another
    files=("${settings[@]/#/$out/$kind-}")
    "${PYTHON:-python3}" "$root/tools/plot.py" "$out/$kind-methods.json" "${files[@]/%/.json}" -o "$out"
  done
fi
