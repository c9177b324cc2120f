#!/usr/bin/env bash
# Makes the measurements of docs/long-context.md: five models of one size are trained on the same
# tokens, fine-tuned on passkeys of the training length, and evaluated far beyond it.
#
# usage: scripts/longcontext/run.sh STAGE...
#
#   data     make the token shards: needs the text (a Go toolchain's sources)
#   train    train each model
#   passkey  fine-tune each on passkeys: short documents first, then those of training length
#   ppl      perplexity of each by length, on the validation split
#   recall   passkey retrieval of each by length and depth
#   speed    prefill and decoding of the paper's 1.6B models, with arbitrary weights
#   docs     write the results of speed from OUT into docs/long-context.md and next to it (on a
#            machine with Go; without OUT/speed, from the files that are already there)
#   collect  copy tables, pictures and logs, which are small, to OUT
#
# Finished stages and models are skipped, so a stage that LIMIT cut off (exit status 75) continues
# when it is called again. Variables:
#
#   BIN      the program (./sambatrain; built with `go build -o sambatrain ./cmd/sambatrain`)
#   RUNS     folder of the runs (runs/longcontext)
#   OUT      folder of the collected results (RUNS/results)
#   MODELS   samba samba256 mistral256 mamba llama (mistral is also available)
#   STEPS    training steps (400, as in the recipes); MICRO is the rows of a micro-batch
#   SHORT_STEPS, KEY_STEPS  fine-tuning steps in short rows (200; for Mamba, which still guesses
#            after 200, 700) and in rows of the training length (550)
#   SAMPLES  passkeys per length and depth
#   LIMIT    maximum seconds for all stages of this call (540)
#   DEVICE   cuda, with DTYPE bfloat16; DEVICE=cpu DTYPE=float32 for a machine without a GPU
#   PAGE     the page that docs writes to (docs/long-context.md)
#   TINY=1   a test of the script that takes a minute on a CPU: the numbers mean nothing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-./sambatrain}
runs=${RUNS:-runs/longcontext}
out=${OUT:-$runs/results}
models=${MODELS:-samba samba256 mistral256 mamba llama}
device=${DEVICE:-cuda} dtype=${DTYPE:-bfloat16}
limit=${LIMIT:-540}

# Perplexity of many documents up to 32k tokens, and of the few that have a million.
lengths=512,1k,2k,4k,8k,16k,32k texts=64 rows=16
long_lengths=2k,8k,32k,64k,128k,256k,512k,1m long_texts=3
keys=1k,2k,4k,8k,16k,32k,64k,128k,256k depths=11 samples=${SAMPLES:-5}
full_keys=1k,2k,4k,8k,16k,32k # for full attention, whose work grows with the square of the length
chunk=4096 recall_batch=5
train=() # more flags for training
[ -z "${STEPS:-}" ] || train+=(--steps "$STEPS")
[ -z "${MICRO:-}" ] || train+=(--set train.micro_batch="$MICRO")
# Fine-tuning on passkeys: a row has one answer, so short rows teach the task at a quarter of the cost.
short_len=512 short_steps=${SHORT_STEPS:-200} mamba_short_steps=${SHORT_STEPS:-700} short_batch=64
key_len=2048 key_steps=${KEY_STEPS:-550} key_batch=32
tune=(--set optim.lr=1e-3 --set optim.min_lr=1e-4 --set optim.warmup_steps=50 --set checkpoint.keep_last=1)
prompts=1k,2k,4k,8k,16k,32k,64k,128k prompt_tokens=128k call_tokens=128k prompt_runs=3 positions=0,1k,2k,4k,16k,64k
speed_models="samba-1.7b mistral-1.6b llama3-1.6b"
if [ -n "${TINY:-}" ]; then
	device=cpu dtype=float32
	lengths=128,256 texts=4 rows=2 long_lengths=256,512 long_texts=2
	keys=300,600 depths=3 samples=1 full_keys=300 chunk=128 recall_batch=1
	small=(--set model.d_model=32 --set model.layers.repeat=1 --set 'model.attention={heads: 2, kv_heads: 2, head_dim: 16, window: 32}' --set model.mlp.d_ff=64)
	text=(--set "data.text={path: $here/../../docs, include: ['**/*.md']}" --set "data.shards=$runs/shards" --set data.validation_fraction=0.4)
	train=("${small[@]}" "${text[@]}" --set data.seq_len=64 --set train.batch_size=4 --steps 4 --set optim.warmup_steps=1 --set eval.rows=2 --set eval.every=0)
	short_len=300 short_steps=2 mamba_short_steps=2 short_batch=2 key_len=400 key_steps=2 key_batch=2
	tune+=(--set optim.warmup_steps=1)
	prompts=16,32 prompt_tokens=64 call_tokens=64 prompt_runs=1 positions=0,16 speed_models=quickstart
fi

started=$SECONDS
# step NAME MODEL COMMAND... runs a command once; NAME-MODEL.done records that it ran. If the time
# runs out, the command is told to stop, so that it can save.
step() {
	local done="$runs/$1-$2.done" log="$runs/$1-$2.log" rc=0 left=$((limit - SECONDS + started))
	shift 2
	[ ! -e "$done" ] || return 0
	[ "$left" -gt 20 ] || { echo "longcontext: no time left in this call; call again for the rest" >&2; exit 75; }
	echo "longcontext: $(basename "$done" .done)" >&2
	timeout -s TERM "$left" "$@" >>"$log" 2>&1 || rc=$?
	case $rc in
	0) touch "$done" ;;
	75 | 124) echo "longcontext: stopped for time; call again for the rest" >&2; exit 75 ;;
	*) tail -n 20 "$log" >&2; exit "$rc" ;;
	esac
}

# begin_or_resume RUN_DIR COMMAND... resumes a run, or starts it.
begin_or_resume() {
	local run=$1
	shift
	if [ -e "$run/config.resolved.yaml" ]; then exec "$bin" resume "$run"; else exec "$@"; fi
}
export -f begin_or_resume
export bin

# finetune STEP FROM RUN STEPS LENGTH BATCH MICRO fine-tunes run FROM on passkeys.
finetune() {
	step "$1" "${3%-*}" bash -c 'begin_or_resume "$@"' - "$runs/$3" "$bin" finetune "$runs/$2" --task passkey --out "$runs/$3" \
		--steps "$4" --set name="longcontext-$3" --set data.seq_len="$5" --set train.batch_size="$6" --set train.micro_batch="$7" "${tune[@]}"
}

# speed STEP MODEL FLAG... writes the output of `bench generate` to STEP-MODEL.json.
speed() {
	local to="$runs/$1-$2.json"
	step "$1" "$2" bash -c '"$@" >"$0"' "$to" "$bin" bench generate "$2" --device "$device" --dtype "$dtype" --output json "${@:3}"
}

# speed_files FOLDER lists the files that speed wrote there, in the order of the tables' columns.
speed_files() {
	local kind m
	for kind in speed speed-one; do
		for m in $speed_models; do [ ! -e "$1/$kind-$m.json" ] || echo "$1/$kind-$m.json"; done
	done
}

# docs writes the page's tables, between two marker comments, and its pictures.
docs() {
	local page=${PAGE:-$here/../../docs/long-context.md} work
	local beside=${page%.md}
	mkdir -p "$beside/speed"
	[ ! -d "$out/speed" ] || cp "$out/speed"/*.json "$beside/speed/"
	work=$(mktemp -d)
	{
		echo
		(cd "$here/../.." && go run ./scripts/longcontext/goals $(speed_files "$(realpath "$beside/speed")"))
		"$bin" bench curves $(speed_files "$beside/speed") --out "$work"
		echo
	} >"$work/tables"
	sed -e '/^<!-- speed:/,/^<!-- end of speed -->/{/^<!--/!d}' -e "/^<!-- speed:/r $work/tables" "$page" >"$work/page"
	cp "$work/page" "$page"
	for f in prompts decode-16 decode-1; do cp "$work/$f.png" "$beside/speed-$f.png"; done
	rm -r "$work"
}

stage() {
	local m=$2 key=$keys short=$short_steps
	case $m in
	llama) key=$full_keys ;;
	mamba) short=$mamba_short_steps ;;
	esac
	case $1 in
	train)
		step train "$m" bash -c 'begin_or_resume "$@"' - "$runs/$m" "$bin" pretrain "$here/$m.yaml" --out "$runs/$m" \
			--device "$device" --dtype "$dtype" "${train[@]}"
		;;
	passkey)
		finetune short "$m" "$m-short" "$short" "$short_len" "$short_batch" 0
		finetune passkey "$m-short" "$m-passkey" "$key_steps" "$key_len" "$key_batch" "${MICRO:-0}"
		;;
	ppl)
		step ppl "$m" "$bin" eval ppl "$runs/$m" --lengths "$lengths" --texts "$texts" --rows "$rows" --chunk "$chunk"
		[ "$m" = llama ] || step ppl-long "$m" "$bin" eval ppl "$runs/$m" --lengths "$long_lengths" --texts "$long_texts" \
			--rows "$long_texts" --chunk "$chunk" --out "$runs/$m/eval/ppl-long"
		;;
	recall)
		step recall-before "$m" "$bin" eval passkey "$runs/$m" --lengths "${key%%,*}" --depths "$depths" --samples 1 --chunk "$chunk"
		step recall "$m" "$bin" eval passkey "$runs/$m-passkey" --lengths "$key" --depths "$depths" --samples "$samples" \
			--rows "$recall_batch" --chunk "$chunk"
		;;
	esac
}

collect() {
	mkdir -p "$out"
	for m in $models; do
		[ -d "$runs/$m" ] || continue
		for run in "$m" "$m-short" "$m-passkey"; do
			for f in config.resolved.yaml metrics.jsonl eval/ppl eval/ppl-long eval/passkey; do
				[ -e "$runs/$run/$f" ] || continue
				mkdir -p "$out/$run/$(dirname "$f")"
				cp -r "$runs/$run/$f" "$out/$run/$(dirname "$f")/"
			done
		done
	done
	cp "$runs"/*.log "$out/"
	for name in ppl ppl-long; do
		local measured=()
		for m in $models; do [ ! -e "$runs/$m/eval/$name/lengths.csv" ] || measured+=("$runs/$m"); done
		[ ${#measured[@]} -eq 0 ] || "$bin" eval curves "${measured[@]}" --name "$name" --out "$out/$name.png" >"$out/$name.md"
	done
	du -sh "$out" >&2
}

[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
mkdir -p "$runs"
for s in "$@"; do
	case $s in
	data)
		# The settings are those of samba.yaml, with the variable as it is written there.
		"$bin" data prepare --text '$GOROOT/src' --include '**/*.go' --shards runs/data/longcontext --validation-fraction 0.06 \
			--exclude '**/testdata/**' --exclude 'vendor/**' --exclude 'cmd/vendor/**' --exclude '**/*simd*' --exclude '**/*simd*/**' \
			--exclude '**/z*.go' --exclude '**/opGen.go' --exclude '**/rewrite*.go' --exclude '**/*table*.go'
		;;
	train | passkey | ppl | recall) for m in $models; do stage "$s" "$m"; done ;;
	speed)
		for m in $speed_models; do
			speed speed "$m" --prompts "$prompts" --tokens "$prompt_tokens" --call-tokens "$call_tokens" --runs "$prompt_runs" \
				--positions "$positions" --rows 16
			speed speed-one "$m" --prompts '' --positions "$positions" --rows 1
		done
		mkdir -p "$out/speed"
		for m in $speed_models; do cp "$runs/speed-$m.json" "$runs/speed-one-$m.json" "$out/speed/"; done
		"$bin" bench curves $(speed_files "$out/speed") --out "$out" | tee "$out/speed.md"
		;;
	docs) docs ;;
	collect) collect ;;
	*) echo "longcontext: no stage $s" >&2; exit 2 ;;
	esac
done
