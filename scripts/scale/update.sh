#!/usr/bin/env bash
# Updates the rates of an H100 that `sambatrain plan` uses, and the tables of docs/scale.md.
#
# usage: scripts/scale/update.sh [FILE...]
#
# FILEs are pages or results with the tables of ops that `sambatrain bench` prints for samba-421m
# and samba-1.3b; without them the rates stay unchanged. Measurements are read from
# docs/bench/h100.md and h100x2.md. Afterwards the test of internal/forecast reports which forecasts
# are off: unaligned, call_us, several and variants of h100.yaml were fitted by hand.
set -euo pipefail
cd "$(dirname "$0")/../.."
rates=internal/forecast/h100.yaml page=docs/scale.md
if [ $# -gt 0 ]; then
	ops=$(go run ./scripts/scale/calibrate "$@")
	# Ops that are not in the files, such as those of other models, keep their rates.
	ops=$({ printf '%s\n' "$ops" | tail -n +2; sed '1,/^ops:$/d' "$rates"; } | sort -s -t: -k1,1 -u)
	sed -i '/^ops:$/,$d' "$rates"
	printf 'ops:\n%s\n' "$ops" >>"$rates"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/sambatrain" ./cmd/sambatrain

# table RECIPE GPUS MORE prints rows for GPUS with the recipe's batch, and for MORE with a batch of 4,096 rows.
table() {
	printf '### %s\n\n' "$1"
	"$work/sambatrain" plan "$1" --gpus "$2" --output markdown
	"$work/sambatrain" plan "$1" --gpus "$3" --set train.batch_size=4096 --output markdown | tail -n +3
}
measured=$({ go test ./internal/forecast -count=1 -run TestMeasured -v || true; } | grep -o '| samba-.*|$')
sed -i '/^| model | GPUs | shard | rows per GPU /,/^$/{/^| samba-/d}' "$page"
printf '%s\n' "$measured" | sed -i '/^| model | GPUs | shard | rows per GPU /{n;r /dev/stdin
}' "$page"
tables=$(
	table samba-421m 1,2,4,8,16,64,256,512 1024,4096
	echo
	table samba-1.3b 1,2,4,8,16,64,256,512 1024,4096
	echo
	table samba-1.7b 1,2,4,8,16,64,256,1024,2048 4096
	echo
	table samba-3.8b 1,2,4,8,16,64,256,1024,2048 4096
)
sed -i '/^### samba-421m$/,$d' "$page"
printf '%s\n' "$tables" >>"$page"
