#!/usr/bin/env bash
# Times a step of the 30M recipe on one row of 1k, 4k, 16k and 64k tokens, in rounds that interleave the
# lengths, and prints a markdown table: medians and ranges of the time per token, and memory.
#
#   scripts/bench/length.sh [-r rounds] [-p command put before each run] [tokens ...]
#
# 64k tokens with all activations kept would take 23 GB. So each length has a memory budget of 0.2 GB per 1024
# tokens (run.memory_budget), and all lengths recompute about the same share of their activations.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=5 prefix=()
while getopts r:p: flag; do
  case $flag in
  r) rounds=$OPTARG ;;
  p) read -ra prefix <<<"$OPTARG" ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
lengths=("$@")
[ ${#lengths[@]} -gt 0 ] || lengths=(1024 4096 16384 65536)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "length.sh: line $LINENO: $BASH_COMMAND: failed" >&2' ERR
go build -o "$work/sambatrain" ./cmd/sambatrain
field() { grep -o "\"$1\": *[0-9.e+-]*" | head -1 | sed 's/.*: *//'; }

for ((round = 0; round < rounds; round++)); do
  for t in "${lengths[@]}"; do
    # Short rows get more steps: a round times about 16k tokens of each length.
    runs=$((t < 16384 ? 16384 / t : 1))
    out=$("${prefix[@]}" "$work/sambatrain" bench samba-30m --set data.seq_len="$t" --set train.batch_size=1 --set train.micro_batch=1 \
      --set run.memory_budget="$((520 + t / 5))MB" --runs "$runs" --output json --log-level error)
    # The optimizer update takes the same time for any length, so it is reported separately.
    update=$(awk '/"op":/ {op = $2} /"ms":/ && op ~ /adamw|grad_norm/ {sum += $2} END {print sum}' <<<"$out")
    echo "$t $(field step_ms <<<"$out") $update $(field activations <<<"$out") $(field peak_rss_bytes <<<"$out") $(field recomputed_calls <<<"$out")"
  done
done >"$work/rounds"

# median DECIMALS TOKENS EXPRESSION prints the median and range of EXPRESSION over a length's rounds.
median() {
  awk -v t="$2" "\$1 == t {print $3}" "$work/rounds" | sort -n |
    awk -v d="$1" '{x[NR] = $1} END {f = "%." d "f"; printf f " (" f "-" f ")", x[int((NR + 1) / 2)], x[1], x[NR]}'
}
echo "| tokens per row | µs per token | of it the update | activations, GB | peak memory of the process, GB | calls repeated |"
echo "|---|---|---|---|---|---|"
for t in "${lengths[@]}"; do
  last=$(grep "^$t " "$work/rounds" | tail -1)
  echo "| $t | $(median 1 "$t" '1e3 * $2 / $1') | $(median 1 "$t" '1e3 * $3 / $1') | $(awk '{printf "%.2f", $4 / 1e9}' <<<"$last") | $(median 2 "$t" '$5 / 1e9') | $(awk '{print $6}' <<<"$last") |"
done
