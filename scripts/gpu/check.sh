#!/usr/bin/env bash
# Checks and times sambatrain on a machine with an NVIDIA GPU, and prints markdown.
#
# usage: scripts/gpu/check.sh [FOLDER]
#
# FOLDER holds the program and the GPU tests, built on any Linux machine with Go:
#
#   CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o FOLDER/sambatrain ./cmd/sambatrain
#   CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o FOLDER/cuda.test ./graph/cuda
#
# Without FOLDER both are built here. PYTHON (python3) with PyTorch times the
# calibration peer; without PyTorch that part is left out and says so.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-}
if [ -z "$bin" ]; then
	bin=$(mktemp -d)
	trap 'rm -rf "$bin"' EXIT
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$bin/sambatrain" ./cmd/sambatrain || exit 1
	CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$bin/cuda.test" ./graph/cuda || exit 1
fi
python=${PYTHON:-python3}
failed=0

section() { printf '\n## %s\n\n' "$1"; }
block() {
	echo '```'
	"$@" 2>&1
	local rc=$?
	echo '```'
	[ $rc -eq 0 ] || { failed=1; echo; echo "exit status $rc"; }
}

echo "# GPU check, $(date -u +%Y-%m-%d), $("$bin/sambatrain" version)"
echo
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

section 'Every op against its float64 reference'
log=$(mktemp)
timeout 400 "$bin/cuda.test" -test.run TestCUDA -test.v >"$log" 2>&1
status=$?
echo "passed $(grep -c -- '    --- PASS' "$log"), failed $(grep -c -- '    --- FAIL' "$log"), exit status $status"
if [ $status -ne 0 ]; then
	failed=1
	grep -- '    --- FAIL' "$log" | sed 's|/[^/]*$||' | sort | uniq -c | head -40
	grep -A1 'cuda_test.go' "$log" | grep -v -- '^--' | cut -c1-160 | sort | uniq -c | sort -rn | head -20
fi
rm -f "$log"

section 'Fixtures, float32'
block "$bin/sambatrain" verify --device cuda --dtype float32 internal/verify/testdata
section 'Fixtures, bfloat16'
block "$bin/sambatrain" verify --device cuda --dtype bfloat16 internal/verify/testdata

section 'Training: the same bits twice, after a kill, and from the CPU on to the GPU'
text=${TEXT:-$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')}
work=$(mktemp -d)
train() { # OUT FLAGS...
	local out=$1
	shift
	"$bin/sambatrain" pretrain quickstart --steps 60 --out "$work/$out" --set "data.shards=$work/shards" --set "data.text.path=$text" \
		--set 'data.text.include=["**/*.py"]' --set checkpoint.every=10 --set eval.every=0 --set sample.tokens=0 --log-level warn "$@" >"$work/$out.out" 2>"$work/$out.err" || tail -3 "$work/$out.err"
	grep -E 'trained|validation' "$work/$out.out"
}
model() { sha256sum "$work/$1/checkpoints/step-00000060/model.safetensors" | cut -c1-16; }
echo '```'
for dtype in float32 bfloat16; do
	for out in $dtype-1 $dtype-2; do
		echo "$out:"
		train $out --device cuda --dtype $dtype
	done
	train $dtype-killed --device cuda --dtype $dtype &
	until [ -d "$work/$dtype-killed/checkpoints/step-00000020" ]; do sleep 0.05; done
	pkill -KILL -f "$work/$dtype-killed"
	wait
	"$bin/sambatrain" resume "$work/$dtype-killed" --log-level warn 2>/dev/null | grep -E 'trained|validation'
	echo "$dtype: twice $(model $dtype-1) $(model $dtype-2), killed and resumed $(model $dtype-killed)"
	[ "$(model $dtype-1)" = "$(model $dtype-2)" ] && [ "$(model $dtype-1)" = "$(model $dtype-killed)" ] || failed=1
done
echo "begun on the CPU, ended on the GPU:"
(train moved --device cpu & until [ -d "$work/moved/checkpoints/step-00000020" ]; do sleep 0.05; done; pkill -INT -f "$work/moved"; wait)
"$bin/sambatrain" resume "$work/moved" --set run.device=cuda --log-level warn 2>/dev/null | grep -E 'trained|validation'
echo '```'
rm -rf "$work"

section 'Ops at a 421M model, mixed precision'
block "$bin/cuda.test" -test.run '^$' -test.bench BenchmarkCUDA -test.benchtime 20x

section 'A training step'
block "$bin/sambatrain" bench scripts/gpu/samba-421m.yaml --runs 20
block "$bin/sambatrain" bench scripts/gpu/samba-1.3b.yaml --runs 20

section 'Calibration peer'
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
	block "$python" scripts/gpu/peer_llama.py
else
	echo 'no PyTorch that sees the GPU: left out'
fi
exit $failed
