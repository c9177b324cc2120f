#!/usr/bin/env bash
# Compares the 30M recipe's training step with a plain Samba in PyTorch on the CPU (peer_cpu.py lists its
# requirements) and prints a markdown table: medians and ranges of tokens/s, peak memory and their ratios, over
# interleaved rounds. First both compute the loss of one row with the same weights.
#
#   scripts/bench/step.sh [-r rounds] [-n steps of a round] [-t threads] [-d] [-p command put before each run]
#
# The peer runs with OPENBLAS_CORETYPE=SkylakeX, the same number of threads, and a malloc that keeps its pages.
# -d also runs it once with its defaults.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=5 steps=3 threads=2 as_it_comes= prefix=()
while getopts r:n:t:dp: flag; do
  case $flag in
  r) rounds=$OPTARG ;;
  n) steps=$OPTARG ;;
  t) threads=$OPTARG ;;
  d) as_it_comes=1 ;;
  p) read -ra prefix <<<"$OPTARG" ;;
  *) exit 2 ;;
  esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "step.sh: line $LINENO: $BASH_COMMAND: failed" >&2' ERR
bin=$work/sambatrain
go build -o "$bin" ./cmd/sambatrain

# Two documents of 1023 bytes, repeated: with the end-of-text token they have 1024 tokens, so all rows of a split
# are the same. Their hashes put them on different sides of the split.
mkdir "$work/text"
for first in 1000 3000; do
  seq $first 9999 | head -c 1023 >"$work/$first.txt" || true # seq's pipe closes early
  for i in {1..64}; do cp "$work/$first.txt" "$work/text/$first-$i.txt"; done
done
# The learning rate of the first step is 0, so the exported weights are those that both losses are computed with.
"$bin" pretrain samba-30m --log-level error --steps 1 --out "$work/run" --set data.shards="$work/shards" \
  --set data.text.path="$work/text" --set 'data.text.include=["*.txt"]' --set data.validation_fraction=0.5 \
  --set train.batch_size=1 --set train.micro_batch=1 --set eval.rows=1 --set sample.tokens=0 >"$work/log" 2>&1 || { cat "$work/log" >&2 && exit 1; }
"$bin" export "$work/run" --format safetensors --out "$work/exported" >/dev/null

peer() { scripts/bench/peer_cpu.py "$work/exported" "$@"; }
tuned_peer() {
  OPENBLAS_CORETYPE=SkylakeX MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=$((1 << 34)) \
    "${prefix[@]}" scripts/bench/peer_cpu.py "$work/exported" --threads "$threads" --steps "$steps"
}
# field NAME prints its number from the JSON on standard input.
field() { grep -o "\"$1\": *[0-9.e+-]*" | sed 's/.*: *//'; }

# The hash decides which of the two documents is for training: one of the peer's losses must equal ours.
ours=$(head -1 "$work/run/metrics.jsonl" | sed 's/.*"loss":\([0-9.]*\).*/\1/')
for first in 1000 3000; do
  theirs=$(peer --row "$work/$first.txt" | field loss)
  if awk -v a="$ours" -v b="$theirs" 'BEGIN {exit !((a - b) ^ 2 < (1e-5 * b) ^ 2)}'; then
    agreed="the loss of one row with the same weights: $ours here, $theirs there"
  fi
done
[ -n "${agreed:-}" ] || { echo "step.sh: the peer computes something else: its loss is $theirs, ours $ours" >&2 && exit 1; }

for ((round = 0; round < rounds; round++)); do
  ours=$("${prefix[@]}" "$bin" bench samba-30m --set train.batch_size=4 --set train.micro_batch=4 --threads "$threads" --runs "$steps" --output json --log-level error)
  theirs=$(tuned_peer)
  echo "$(field tokens_per_second <<<"$ours") $(field peak_rss_bytes <<<"$ours") $(field tokens_per_second <<<"$theirs") $(field peak_rss_bytes <<<"$theirs") $(field mfu <<<"$ours")"
done >"$work/rounds"

# median DECIMALS EXPRESSION prints the median and range of EXPRESSION over the rounds.
median() {
  awk "{print $2}" "$work/rounds" | sort -n |
    awk -v d="$1" '{x[NR] = $1} END {f = "%." d "f"; printf f " (" f "-" f ")", x[int((NR + 1) / 2)], x[1], x[NR]}'
}
echo "samba-30m, 4 rows of 1024 tokens, float32, $threads threads; $rounds rounds of $steps steps; $agreed."
echo
echo "| | tokens/s | peak memory of the process, GB |"
echo "|---|---|---|"
echo "| sambatrain | $(median 0 '$1') | $(median 2 '$2 / 1e9') |"
echo "| PyTorch, OPENBLAS_CORETYPE=SkylakeX, $threads threads, malloc keeps its pages | $(median 0 '$3') | $(median 2 '$4 / 1e9') |"
if [ -n "$as_it_comes" ]; then
  default=$("${prefix[@]}" scripts/bench/peer_cpu.py "$work/exported" --steps 1)
  echo "| PyTorch as it comes ($(field threads <<<"$default") thread), 1 step | $(field tokens_per_second <<<"$default" | awk '{printf "%.0f", $1}') | $(field peak_rss_bytes <<<"$default" | awk '{printf "%.2f", $1 / 1e9}') |"
fi
echo "| ratio of the first two | $(median 2 '$1 / $3') | $(median 2 '$2 / $4') |"
echo
echo "Model FLOPs utilisation of the measured multiply-add peak: $(median 1 '100 * $5')%."
