#!/usr/bin/env bash
# tools/gpu-check as far as a machine without a GPU shows it: one line there, and the table of results that lie in a
# folder. Usage: gpu_check_test.sh PROJECT
set -u
check=$1/tools/gpu-check
fail() { echo "$*"; exit 1; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

if ! nvidia-smi -L > /dev/null 2>&1 && ! compgen -G '/dev/nvidia[0-9]*' > /dev/null; then
  said=$("$check" -o "$folder/none" 2>&1) && fail "exit status 0 without a GPU"
  [ "$said" = "gpu-check: no GPU on this machine: nothing was run" ] || fail "without a GPU: $said"
  [ ! -e "$folder/none" ] || fail "a folder was made without a GPU"
fi
"$check" --help | grep -q -- --report || fail "--help does not name --report"
"$check" --nothing 2> /dev/null
[ $? = 2 ] || fail "an unknown option: exit status $?"

# what() FOUND MET: the table has this line.
table=
what() {
  grep -q -E "^$1 .*  $2 +$3\$" <<< "$table" || fail "expected '$1 … $2 $3' in:
$table"
}
table=$("$check" --report -o "$folder") && fail "exit status 0 of nothing"
[ "$(wc -l <<< "$table")" = 14 ] || fail "14 lines expected: $table"
what "tests on the GPU" "no tests.status" NO
what "full prefill of 32K, bf16, of cuBLASLt's rate" "no roofline-bf16.json" NO

for step in build tests memcheck racecheck synccheck initcheck; do echo 0 > "$folder/$step.status"; done
echo '{"scores": [{"method": "full", "kl": {"mean": 0.0002}}]}' > "$folder/kld.result"
echo '[{"kernel": "gemm q", "share_of_peak": 0.9}, {"kernel": "prefill pp32768", "share_of_peak": 0.5123},
  {"kernel": "decode tg128", "share_of_peak": 0.84}]' > "$folder/roofline-bf16.json"
suite() { # of FastKV's times: prefill of 32K and 128K, decode at 128K, for 1000 of full's
  local method ns=(1000 1000 1000) between=''
  for method in full fastkv; do
    printf '%s{"method": "%s", "n_prompt": 32768, "n_gen": 0, "n_depth": 0, "median_ns": %s},
      {"method": "%s", "n_prompt": 0, "n_gen": 256, "n_depth": 32768, "median_ns": 1},
      {"method": "%s", "n_prompt": 131072, "n_gen": 0, "n_depth": 0, "median_ns": %s},
      {"method": "%s", "n_prompt": 0, "n_gen": 256, "n_depth": 131072, "median_ns": %s}' \
      "$between" $method "${ns[0]}" $method $method "${ns[1]}" $method "${ns[2]}"
    ns=("$@") between=', '
  done
}
echo "[$(suite 580 540 560)]" > "$folder/suite-bf16.json"
echo "[$(suite 580 540 340)]" > "$folder/suite-q4_0.json"
table=$("$check" --report -o "$folder") || fail "all met, yet exit status $?: $table"
what "compute-sanitizer racecheck" "exit status 0" yes
what "KL divergence from the CPU in float32" "0\.00020" yes
what "full prefill of 32K, bf16, of cuBLASLt's rate" "51\.23 %" yes
what "decode, bf16, of the memory's bandwidth" "84\.00 %" yes
what "FastKV over full prefill, 32K, bf16" "1\.72 x" yes
what "FastKV over full prefill, 128K, bf16" "1\.85 x" yes
what "FastKV over full decode, 128K, bf16" "1\.79 x" yes
what "FastKV over full decode, 128K, Q4_0" "2\.94 x" yes

echo 9 > "$folder/initcheck.status"
echo "[$(suite 600 540 560), {" > "$folder/suite-bf16.json"
echo "[$(suite 580 540 360)]" > "$folder/suite-q4_0.json"
echo '[]' > "$folder/roofline-bf16.json"
table=$("$check" --report -o "$folder") && fail "exit status 0 although some are not met: $table"
what "compute-sanitizer initcheck" "exit status 9" NO
what "full prefill of 32K, bf16, of cuBLASLt's rate" "unreadable: IndexError.*" NO
what "FastKV over full prefill, 32K, bf16" "unreadable: JSONDecodeError.*" NO
what "FastKV over full decode, 128K, Q4_0" "2\.78 x" NO
