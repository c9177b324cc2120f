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
	grep -B1 -A2 -- '--- FAIL' "$log" | head -60
fi
rm -f "$log"

section 'Fixtures, float32'
block "$bin/sambatrain" verify --device cuda --dtype float32 internal/verify/testdata
section 'Fixtures, bfloat16'
block "$bin/sambatrain" verify --device cuda --dtype bfloat16 internal/verify/testdata

section 'Ops at a 421M model, mixed precision'
block "$bin/cuda.test" -test.run '^$' -test.bench BenchmarkCUDA -test.benchtime 20x

section 'A training step'
block "$bin/sambatrain" bench scripts/gpu/samba-421m.yaml --runs 20

section 'Calibration peer'
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
	block "$python" scripts/gpu/peer_llama.py
else
	echo 'no PyTorch that sees the GPU: left out'
fi
exit $failed
