#!/usr/bin/env bash
# Trains on one and on several GPUs of this machine, compares losses, parameters, speed and memory,
# kills a process, and prints markdown, from which docs/bench/h100x2.md and h200x2.md were made.
#
# usage: scripts/gpu/parallel.sh [FOLDER]
#
# FOLDER holds the program, built on any Linux machine with Go:
#
#   CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o FOLDER/sambatrain ./cmd/sambatrain
#
# Without FOLDER it is built here. GPUS (2) is the number of GPUs, TEXT a folder of *.py files to
# train on (default: Python's own library), WORK a folder for runs and their logs (default: a
# temporary one), LIMIT the maximum duration of a run in seconds. PARTS names the parts to run:
# agree lost torchrun speed large. DTYPES, SHARDS, MODELS (samba-421m:8, with the rows per GPU),
# STEPS and ROUNDS set what they cover.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-}
if [ -n "$bin" ]; then
	bin=$(cd "$bin" && pwd)
fi
work=${WORK:-}
trap 'rm -rf "${made[@]}"' EXIT
made=()
if [ -z "$bin" ]; then
	bin=$(mktemp -d)
	made+=("$bin")
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$bin/sambatrain" ./cmd/sambatrain || exit 1
fi
if [ -z "$work" ]; then
	work=$(mktemp -d)
	made+=("$work")
fi
python=${PYTHON:-python3}
gpus=${GPUS:-2}
text=${TEXT:-$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')}
IFS=, read -ra cards <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}"
failed=0

section() { printf '\n## %s\n\n' "$1"; }
fail() {
	failed=1
	echo "FAILED: $*"
}

# The flags of all runs: data from Python's own library, one byte per token.
data=(--set "data.text.path=$text" --set 'data.text.include=["**/*.py"]' --set 'data.text.validation=[]' --set data.tokenizer=bytes
	--set eval.every=0 --set sample.tokens=0 --device cuda --log-level warn)

# spawn GPUS LOGS COMMAND... runs COMMAND in the background, with one process per GPU; a single
# process uses GPU $CARD, or the first one. It sets pid to the started process.
spawn() {
	local n=$1 logs=$2
	shift 2
	if [ "$n" = 1 ]; then
		env "CUDA_VISIBLE_DEVICES=${CARD:-${cards[0]}}" "$@" >"$logs.out" 2>"$logs.err" &
	else
		"$@" --nproc-per-node "$n" >"$logs.out" 2>"$logs.err" &
	fi
	pid=$!
}

# end PID kills a run and waits until its processes are gone.
end() {
	local child
	local children
	children=$(pgrep -P "$1")
	kill -KILL "$1" $children 2>/dev/null
	wait "$1" 2>/dev/null
	for child in $children; do
		while kill -0 "$child" 2>/dev/null; do sleep 0.1; done
	done
}

# within NAME waits for a run. A run that takes too long reports where it is, and is killed.
within() {
	local latest=$((SECONDS + ${LIMIT:-90}))
	while kill -0 "$pid" 2>/dev/null; do
		if [ $SECONDS -ge $latest ]; then
			kill -QUIT $(pgrep -P "$pid") "$pid" 2>/dev/null
			sleep 1
			end "$pid"
			break
		fi
		sleep 0.1
	done
	wait "$pid"
	local code=$?
	[ $code = 0 ] || { fail "$1: exit status $code"; grep -v '^$' "$work/$1.err" | head -n 5; }
}

small=(quickstart --steps 60 --set "data.shards=$work/small" --set checkpoint.every=1000)

# train NAME GPUS FLAGS... trains the small model to the end.
train() {
	local name=$1 n=$2 pid
	shift 2
	spawn "$n" "$work/$name" "$bin/sambatrain" pretrain "${small[@]}" "${data[@]}" --out "$work/$name" "$@"
	within "$name"
}

# compare NAME WITH prints the worst difference of a step's loss, and whether the parameters are
# the same.
compare() {
	"$python" - "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" "$1" "$2" <<'PY'
import json, sys
def losses(path):
    return {r["step"]: r["loss"] for r in map(json.loads, open(path)) if "loss" in r}
def last(path):
    return [r["val_loss"] for r in map(json.loads, open(path)) if "val_loss" in r][-1]
try:
    a, b = losses(sys.argv[1]), losses(sys.argv[2])
    worst = max(abs(a[s] - b[s]) for s in b)
    first = abs(a[1] - b[1])
    print(f"| {sys.argv[3]} | {sys.argv[4]} | {len(b)} | {first:.1e} | {worst:.1e} | {last(sys.argv[1]):.4f} | {last(sys.argv[2]):.4f} |", end="")
except Exception as e:
    print(f"| {sys.argv[3]} | {sys.argv[4]} | {type(e).__name__}: {e} | | | | |", end="")
PY
	if "$bin/sambatrain" checkpoint diff "$work/$1" "$work/$2" >"$work/$1.diff" 2>&1; then echo " same bits |"; else echo " differ |"; fi
}

# agree compares losses of several GPUs and of one, and repeats a run.
agree() {
	section "The quickstart on 1 and on $gpus GPUs"
	local dtype shard
	row() { # NAME WITH FLAGS...: trains on all GPUs, to be compared
		local name=$1 with=$2
		shift 2
		train "$name" "$gpus" --dtype "$dtype" "$@"
		compare "$name" "$with"
	}
	echo '| run | compared with | steps | first loss differs by | worst | validation | of the other | parameters |'
	echo '|---|---|---|---|---|---|---|---|'
	for dtype in ${DTYPES:-float32 bfloat16}; do
		train one-$dtype 1 --dtype $dtype
		for shard in none optimizer full; do
			row $shard-$dtype one-$dtype --set run.shard=$shard
		done
		for shard in none full; do
			row $shard-$dtype-again $shard-$dtype --set run.shard=$shard
		done
		row full-$dtype-accumulated one-$dtype --set run.shard=full --set train.micro_batch=1
		[ $dtype = bfloat16 ] || continue
		for shard in none full; do
			row $shard-$dtype-reduced one-$dtype --set run.shard=$shard --set run.reduce_dtype=bfloat16
		done
	done
}

# lost kills a process; the others end, and one GPU continues the run.
lost() {
	section 'A process is killed'
	local shard pid started
	for shard in ${SHARDS:-none full}; do
		spawn "$gpus" "$work/lost-$shard" "$bin/sambatrain" pretrain "${small[@]}" "${data[@]}" --steps 4000 --set checkpoint.every=500 --set run.shard=$shard \
			--out "$work/lost-$shard"
		for _ in $(seq 400); do
			[ -d "$work/lost-$shard/checkpoints/step-00000500" ] || ! kill -0 $pid 2>/dev/null && break
			sleep 0.1
		done
		started=$(date +%s.%N)
		kill -KILL "$(pgrep -P $pid | tail -n 1)"
		wait $pid
		echo "shard $shard: all ended, exit status $?, $("$python" -c "import sys,time; print(f'{time.time()-float(sys.argv[1]):.1f} s')" "$started") after SIGKILL to one of $gpus"
		tail -n 3 "$work/lost-$shard.err"
		spawn 1 "$work/resumed-$shard" "$bin/sambatrain" resume "$work/lost-$shard" --log-level warn
		within "resumed-$shard"
		grep -E 'trained|validation' "$work/resumed-$shard.out"
	done
}

torchrun() {
	section 'Started by torchrun'
	local pid
	command torchrun --no-python --nproc-per-node "$gpus" "$bin/sambatrain" pretrain "${small[@]}" --steps 10 "${data[@]}" --out "$work/torchrun" >"$work/torchrun.out" 2>"$work/torchrun.err" &
	pid=$!
	within torchrun
	grep -E 'trained|validation' "$work/torchrun.out"
}

# idle GPU... waits until no other program uses them.
idle() {
	local card
	for card in "$@"; do
		for _ in $(seq 50); do
			[ "$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "$card")" -gt 2000 ] || continue 2
			sleep 0.2
		done
		fail "GPU $card is in use by another program: what follows is not its speed"
	done
}

# begin NAME RECIPE ROWS GPUS FLAGS... starts a run in the background with ROWS rows of 4,096
# tokens per GPU.
begin() {
	local name=$1 recipe=$2 rows=$3 n=$4
	shift 4
	if [ "$n" = 1 ]; then idle "${CARD:-${cards[0]}}"; else idle "${cards[@]}"; fi
	spawn "$n" "$work/$name" "$bin/sambatrain" pretrain "$recipe" "${data[@]}" --set "data.shards=$work/large" --steps 1000 --set checkpoint.every=1000 \
		--set "train.batch_size=$((rows * n))" --set "train.micro_batch=$rows" --set 'eval.lengths=[1]' --set eval.rows=2 --out "$work/$name" "$@"
	echo "$pid" >"$work/$name.pid"
}

# measure NAME RECIPE ROWS GPUS STEPS WHAT waits for STEPS steps after the first WARM (5), and kills
# the run. It appends the steps' times and a GPU's memory in use to speed.jsonl.
measure() {
	local name=$1 recipe=$2 rows=$3 n=$4 steps=$5 what=$6 warm=${WARM:-5} pid memory latest=$((SECONDS + ${LIMIT:-90}))
	pid=$(cat "$work/$name.pid")
	while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $latest ]; do
		[ "$(grep -c '"loss"' "$work/$name/metrics.jsonl" 2>/dev/null)" -ge $((steps + warm)) ] 2>/dev/null && break
		sleep 0.2
	done
	memory=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "${CARD:-${cards[0]}}")
	end "$pid"
	"$python" - "$work/$name/metrics.jsonl" "$recipe" "$rows" "$n" "$steps" "$warm" "$memory" "$what" >>"$work/speed.jsonl" <<'PY' || { fail "$name"; tail -n 5 "$work/$name.err"; }
import json, sys
path, recipe, rows, n, steps, warm, memory, what = sys.argv[1:]
ms = [r["step_ms"] for r in map(json.loads, open(path)) if "step_ms" in r][int(warm):]
if len(ms) < int(steps):
    sys.exit(f"{len(ms)} steps of {steps}")
print(json.dumps({"recipe": recipe, "rows": int(rows), "gpus": int(n), "what": what, "ms": ms, "gib": int(memory) / 1024}))
PY
}

# report RECIPE prints a table of a model's runs, with one row per kind of run.
report() {
	"$python" - "$work/speed.jsonl" "$1" "$gpus" <<'PY'
import json, statistics, sys
path, recipe, gpus = sys.argv[1:]
kinds = {}
for r in map(json.loads, open(path)):
    if r["recipe"] == recipe:
        kinds.setdefault(r["what"], []).append(r)
speed = {}
for what, runs in kinds.items():
    ms = [t for r in runs for t in r["ms"]]
    speed[what] = runs[0]["rows"] * runs[0]["gpus"] * 4096 / statistics.median(ms) * 1e3
beside = [v for what, v in speed.items() if " beside " in what]
print()
print("| model | GPUs | `run.shard` | rows per GPU | ms per step: median (least to most), of each run | tokens/s | of the GPUs' mean | of the slowest | GiB | |")
print("|---|---|---|---|---|---|---|---|---|---|")
for what, runs in kinds.items():
    ms = [t for r in runs for t in r["ms"]]
    each = ", ".join(f"{statistics.median(r['ms']):.1f}" for r in runs)
    of = [f"{speed[what] / x:.2f}" for x in (statistics.mean(beside), min(beside))] if beside else ["", ""]
    one = runs[0]["gpus"] == 1
    print(f"| {recipe} | {runs[0]['gpus']} | {'' if one else what} | {runs[0]['rows']} | {statistics.median(ms):.1f} ({min(ms):.1f} to {max(ms):.1f}; {each}) | {speed[what]:,.0f} | {of[0]} | {of[1]} | {max(r['gib'] for r in runs):.1f} | {what if one else ''} |")
PY
}

# beside RECIPE ROWS STEPS NUMBER trains on each GPU separately, all at the same time: the maximum
# of this machine.
beside() {
	local i others
	for i in $(seq 0 $((gpus - 1))); do
		CARD=${cards[$i]} begin beside-$4-$i-$1 "$1" "$2" 1 --set "data.shards=$work/large-$i"
	done
	for i in $(seq 0 $((gpus - 1))); do
		others=$(seq -s' and ' 0 $((gpus - 1)) | sed "s/^$i and //; s/ and $i\b//")
		CARD=${cards[$i]} measure beside-$4-$i-$1 "$1" "$2" 1 "$3" "GPU $i beside $others"
	done
}

# speed trains a model on each GPU separately at the same time, and then on all together, in turn.
speed() {
	section 'Speed, bfloat16, rows of 4,096 tokens'
	local steps=${STEPS:-30} rounds=${ROUNDS:-2} shard model recipe rows round
	rm -f "$work/speed.jsonl"
	for model in ${MODELS:-samba-421m:8 samba-1.3b:4}; do
		recipe=${model%:*} rows=${model#*:}
		for round in $(seq "$rounds"); do
			beside "$recipe" "$rows" "$steps" "$round"
			for shard in ${SHARDS:-none optimizer full}; do
				begin "$shard-$round-$recipe" "$recipe" "$rows" "$gpus" --set run.shard="$shard"
				measure "$shard-$round-$recipe" "$recipe" "$rows" "$gpus" "$steps" "$shard"
			done
		done
		beside "$recipe" "$rows" "$steps" last
		report "$recipe"
	done
}

large() {
	section 'Samba 3.8B with all sharded'
	begin full-3.8b samba-3.8b "${ROWS:-2}" "$gpus" --set run.shard=full
	measure full-3.8b samba-3.8b "${ROWS:-2}" "$gpus" 5 full
	report samba-3.8b
}

echo "# $gpus GPUs, $(date -u +%Y-%m-%d), $("$bin/sambatrain" version)"
echo
nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader
for part in ${PARTS:-agree lost torchrun speed large}; do $part; done
exit $failed
