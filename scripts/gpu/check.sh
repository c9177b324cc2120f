#!/usr/bin/env bash
# Checks and times sambatrain on a machine with an NVIDIA GPU, and prints markdown.
#
# usage: scripts/gpu/check.sh [FOLDER]
#
# FOLDER holds the program and the GPU tests, built on any Linux machine with Go:
#
#   CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o FOLDER/sambatrain ./cmd/sambatrain
#   CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o FOLDER/cuda.test ./graph/cuda
#   CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o FOLDER/generate.test ./internal/generate
#
# Without FOLDER, all are built here. PYTHON (python3) with PyTorch times the calibration peer;
# without PyTorch that part is skipped with a message. PARTS names the parts to run: ops fixtures
# pieces training documents steps long peer.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-}
if [ -z "$bin" ]; then
	bin=$(mktemp -d)
	trap 'rm -rf "$bin"' EXIT
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$bin/sambatrain" ./cmd/sambatrain || exit 1
	CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$bin/cuda.test" ./graph/cuda || exit 1
	CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$bin/generate.test" ./internal/generate || exit 1
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

# Every op is compared with its float64 reference, in parallel processes: most of the time goes
# into compiling kernels.
ops() {
	section 'Every op against its float64 reference'
	local logs shards=16
	logs=$(mktemp -d)
	for i in $(seq 0 $((shards - 1))); do
		timeout 400 "$bin/cuda.test" -test.run TestCUDAOps -test.v -shard "$i/$shards" >"$logs/$i" 2>&1 || touch "$logs/failed" &
	done
	wait
	echo "passed $(cat "$logs"/[0-9]* | grep -c -- '    --- PASS'), failed $(cat "$logs"/[0-9]* | grep -c -- '    --- FAIL')"
	if [ -e "$logs/failed" ]; then
		failed=1
		cat "$logs"/[0-9]* | grep -- '    --- FAIL' | sed 's| (.*||' | sort | head -40
		cat "$logs"/[0-9]* | grep -E '_test.go|^panic' | cut -c1-160 | sort | uniq -c | sort -rn | head -20
	fi
	rm -rf "$logs"
	section 'Algorithms of products give the same bits; programs that fail leave nothing behind'
	block timeout 120 "$bin/cuda.test" -test.run 'TestTunedBits|TestFailedLoad' -test.v
}

fixtures() {
	local dtype
	for dtype in float32 tf32 bfloat16; do
		section "Fixtures, $dtype"
		block "$bin/sambatrain" verify --device cuda --dtype $dtype internal/verify/testdata
	done
}

# Sequences read in pieces and token by token are compared with whole sequences, for every
# architecture.
pieces() {
	section 'Texts in pieces, and token by token, against whole texts and the CPU'
	local logs test passed
	logs=$(mktemp -d)
	for test in TestAnySplitOnGPU/{float32,tf32,bfloat16} TestFewRowsOnGPU TestDrawnOnGPU; do
		timeout 300 "$bin/generate.test" -test.run "$test" -test.v >"$logs/${test//\//-}" 2>&1 || touch "$logs/failed" &
	done
	wait
	passed=$(cat "$logs"/Test* | grep -c -- '^ *--- PASS: .*/')
	echo "passed $passed, failed $(cat "$logs"/Test* | grep -c -- '^ *--- FAIL: .*/')"
	if [ -e "$logs/failed" ] || [ "$passed" -eq 0 ]; then
		failed=1
		cat "$logs"/Test* | grep -vE 'off by|^=== ' | cut -c1-160 | head -40
	fi
	rm -rf "$logs"
}

# Runs are bit-identical when repeated and after a kill, losses stay the same when a run moves
# between the CPU and the GPU, and train.guard skips steps.
training() {
	section 'Training: twice, after a kill, moved between the CPU and the GPU, and guarded'
	local text work dtype pid
	text=${TEXT:-$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')}
	work=$(mktemp -d)
	local common=(quickstart --steps 60 --set "data.shards=$work/shards" --set "data.text.path=$text" --set 'data.text.include=["**/*.py"]'
		--set checkpoint.every=10 --set eval.every=0 --set sample.tokens=0 --log-level warn)
	result() { # OUT STATUS
		[ "$2" -eq 0 ] || { failed=1; echo "exit status $2:"; tail -3 "$work/$1.err"; }
		grep -E 'trained|validation' "$work/$1.out"
	}
	train() { # OUT FLAGS...
		"$bin/sambatrain" pretrain "${common[@]}" --out "$work/$1" "${@:2}" >"$work/$1.out" 2>"$work/$1.err"
		result "$1" $?
	}
	begin() { # OUT FLAGS...: in the background, until its second checkpoint
		"$bin/sambatrain" pretrain "${common[@]}" --out "$work/$1" "${@:2}" >"$work/$1.out" 2>"$work/$1.err" &
		pid=$!
		until [ -d "$work/$1/checkpoints/step-00000020" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
	}
	finish() { # OUT FLAGS...
		"$bin/sambatrain" resume "$work/$1" "${@:2}" --log-level warn >"$work/$1.out" 2>"$work/$1.err"
		result "$1" $?
	}
	moved() { # DTYPE FROM TO TOLERANCE: losses against the run that was on the GPU all along
		echo "$1, begun on the $2 and ended on the $3:"
		begin "$1-$2" --device "$2" --dtype "$1"
		kill -INT $pid
		wait $pid
		[ $? -eq 75 ] || { failed=1; echo 'was not stopped on the way'; }
		finish "$1-$2" --set run.device="$3"
		"$python" - "$work/$1-1/metrics.jsonl" "$work/$1-$2/metrics.jsonl" "$4" <<-'EOF' || failed=1
			import json, sys
			def losses(path):
			    records = map(json.loads, open(path))
			    return {(r["step"], k): r[k] for r in records for k in ("loss", "val_loss") if k in r}
			stayed, moved = losses(sys.argv[1]), losses(sys.argv[2])
			worst = max(abs(moved.get(k, float("inf")) / v - 1) for k, v in stayed.items())
			print(f"{len(stayed)} losses, the largest difference {worst:.1e} (allowed {sys.argv[3]})")
			sys.exit(not worst <= float(sys.argv[3]))
		EOF
	}
	skips() { grep -c '"event":"skipped"' "$work/$1/metrics.jsonl"; }
	model() { sha256sum "$work/$1/checkpoints/step-00000060/model.safetensors" | cut -c1-16; }
	echo '```'
	for dtype in float32 bfloat16; do
		echo "$dtype, twice:"
		train $dtype-1 --device cuda --dtype $dtype
		train $dtype-2 --device cuda --dtype $dtype
		echo "$dtype, killed and resumed:"
		begin $dtype-killed --device cuda --dtype $dtype
		kill -KILL $pid
		wait $pid 2>/dev/null
		finish $dtype-killed
		echo "parameters: $(model $dtype-1) $(model $dtype-2) $(model $dtype-killed)"
		[ "$(model $dtype-1)" = "$(model $dtype-2)" ] && [ "$(model $dtype-1)" = "$(model $dtype-killed)" ] || failed=1
	done
	moved float32 cpu cuda 1e-4
	moved float32 cuda cpu 1e-4
	moved bfloat16 cpu cuda 2e-2
	moved bfloat16 cuda cpu 2e-2
	local spikes=(--device cuda --dtype bfloat16 --set train.guard.max_z=1 --set train.guard.window=5)
	echo "guarded against spikes, twice, and killed and resumed:"
	train guarded-1 "${spikes[@]}"
	train guarded-2 "${spikes[@]}"
	begin guarded-killed "${spikes[@]}"
	kill -KILL $pid
	wait $pid 2>/dev/null
	finish guarded-killed
	echo "steps left out: $(skips guarded-1) $(skips guarded-2) $(skips guarded-killed); parameters: $(model guarded-1) $(model guarded-2) $(model guarded-killed)"
	[ "$(skips guarded-1)" -gt 0 ] && [ "$(skips guarded-1)" = "$(skips guarded-killed)" ] && [ "$(model guarded-1)" = "$(model guarded-2)" ] && [ "$(model guarded-1)" = "$(model guarded-killed)" ] || failed=1
	echo "guarded against what is not finite, at a rate that spoils the model:"
	"$bin/sambatrain" pretrain "${common[@]}" --out "$work/spoilt" --device cuda --dtype bfloat16 --set optim.lr=1e25 \
		--set train.guard.skip_non_finite=true --set train.guard.abort_after=3 >/dev/null 2>"$work/spoilt.err"
	[ $? -eq 1 ] && [ "$(skips spoilt)" -eq 3 ] || failed=1
	sed "s|$work/||g" "$work/spoilt.err"
	echo '```'
	rm -rf "$work"
}

# With the documents of a row kept apart, losses are the same on the CPU and on the GPU, and differ
# from those of rows that are read as one document.
documents() {
	section 'Documents apart: losses on the CPU, on the GPU, and on the GPU with rows as whole texts'
	local text work pattern run
	text=${TEXT:-$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')}
	work=$(mktemp -d)
	mkdir "$work/text"
	"$python" - "$text" "$work/text/paragraphs.jsonl" <<-'END'
		import glob, json, sys
		with open(sys.argv[2], "w") as f:
		    for name in sorted(glob.glob(sys.argv[1] + "/*.py")):
		        for part in open(name, encoding="utf-8", errors="replace").read().split("\n\n"):
		            f.write(json.dumps({"text": part}) + "\n")
	END
	echo '```'
	for pattern in '[mamba, mlp, swa, mlp]' '[gla, mlp, attn, mlp]' '[retention, mlp, mega, mlp]'; do
		for run in cpu:true cuda:true cuda:false; do
			"$bin/sambatrain" pretrain quickstart --steps 12 --device "${run%:*}" --out "$work/$run" --set "data.reset_state=${run#*:}" \
				--set "model.layers.pattern=$pattern" --set "data.shards=$work/shards" --set "data.text.path=$work/text" \
				--set 'data.text.include=["*.jsonl"]' --set data.text.jsonl_field=text --set eval.every=0 --set eval.rows=8 --set sample.tokens=0 --log-level warn >"$work/out" 2>&1 || cat "$work/out"
		done
		"$python" - "$pattern" "$work"/{cpu:true,cuda:true,cuda:false}/result.json <<-'END' || failed=1
			import json, sys
			losses = [[json.load(open(f))[k] for k in ("train_loss", "val_loss")] for f in sys.argv[2:]]
			print(sys.argv[1], *("%.6f %.6f" % tuple(l) for l in losses), sep="  ")
			apart = lambda a, b: max(abs(x - y) for x, y in zip(a, b))
			sys.exit(apart(losses[0], losses[1]) > 1e-4 or apart(losses[1], losses[2]) < 1e-3)
		END
		rm -rf "$work"/c*
	done
	echo '```'
	rm -rf "$work"
}

# Times a step of one micro-batch of a recipe, with its optimizer.
bench() { # RECIPE ROWS STEPS FLAGS...
	block "$bin/sambatrain" bench "$1" --set "train.batch_size=$2" --set "train.micro_batch=$2" --runs "$3" "${@:4}"
}

steps() {
	section 'A training step, bfloat16, rows of 4,096 tokens'
	bench samba-421m 8 20
	bench samba-1.3b 4 20
	section 'Larger models'
	bench samba-1.7b 4 5
	bench samba-3.8b 1 3
}

long() {
	section 'One long row, 421M'
	bench samba-421m 1 3 --set data.seq_len=65536
	bench samba-421m 1 2 --set data.seq_len=262144
}

peer() {
	section 'Calibration peer'
	if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
		block "$python" scripts/gpu/peer_llama.py
	else
		echo 'no PyTorch that sees the GPU: left out'
	fi
}

echo "# GPU check, $(date -u +%Y-%m-%d), $("$bin/sambatrain" version)"
echo
nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader
for part in ${PARTS:-ops fixtures pieces training documents steps long peer}; do $part; done
exit $failed
