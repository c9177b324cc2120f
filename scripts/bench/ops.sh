#!/usr/bin/env bash
# Times ops at the shapes of real models and prints a markdown table: medians over rounds, and the range of the
# share of the tighter limit. Each round measures the machine's limits again, before and after each op.
#
#   scripts/bench/ops.sh [-r rounds] [-t time of an op in a round] [regular expression for the ops' folders]
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=5 time=50ms
while getopts r:t: flag; do
  case $flag in
  r) rounds=$OPTARG ;;
  t) time=$OPTARG ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
ops=${1:-.*}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go test -c -o "$work/ops.test" ./graph/ops
for ((round = 0; round < rounds; round++)); do
  "$work/ops.test" -test.run '^$' -test.bench "^BenchmarkCPU\$/^($ops)\$" -test.skip 'micro-batch|one_token|decode' -test.benchtime "$time"
done | sed -n 's,^BenchmarkCPU/[^/]*/,,p' >"$work/lines"

# Prints the median and range of the numbers on standard input.
awk '
function sorted(list, n,  i, j, x) {
  for (i = 2; i <= n; i++) { x = list[i]; for (j = i - 1; j > 0 && list[j] > x; j--) list[j+1] = list[j]; list[j+1] = x }
}
function median(name, unit,  i, n, list) {
  n = count[name]
  for (i = 1; i <= n; i++) list[i] = value[name, unit, i]
  sorted(list, n)
  low = list[1]; high = list[n]
  return list[int((n + 1) / 2)]
}
{
  name = $1; sub(/-[0-9]+$/, "", name)
  if (!(name in count)) order[++names] = name
  i = ++count[name]
  for (k = 3; k < NF; k += 2) {
    unit = $(k+1)
    if (unit ~ /^%/) { limit[name] = substr(unit, 2); unit = "share" }
    value[name, unit, i] = $k + 0
  }
}
END {
  print "| op | shape | ms | GFLOP/s | GB/s | % of the limit | limit |"
  print "|---|---|---|---|---|---|---|"
  for (k = 1; k <= names; k++) {
    name = order[k]; op = shape = name
    sub(/\/.*/, "", op); sub(/^[^\/]*\//, "", shape); gsub(/_/, " ", shape); sub(/\//, " x ", shape)
    printf "| %s | %s | %.3f | %.1f | %.1f | ", op, shape, median(name, "ns/op") / 1e6, median(name, "GFLOP/s"), median(name, "GB/s")
    share = median(name, "share")
    printf "%.0f (%.0f-%.0f) | %s |\n", share, low, high, limit[name]
  }
}' "$work/lines"
