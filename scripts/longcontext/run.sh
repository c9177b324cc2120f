#!/usr/bin/env bash
# The measurements of docs/long-context.md: four models of one size, trained on the same
# tokens, fine-tuned on passkeys of the training length, and measured far beyond it.
#
# usage: scripts/longcontext/run.sh STAGE...
#
#   data     make the token shards: needs the text (a Go toolchain's sources)
#   train    train each model
#   passkey  fine-tune each on passkeys
#   ppl      perplexity of each by length, on the validation split
#   recall   passkeys of each by length and depth
#   speed    prompts and decoding of the paper's 1.6B models, arbitrary weights
#   collect  tables, pictures and logs, small enough to carry away, to OUT
#
# Stages and models that are done are passed over, so that a stage that LIMIT seconds cut
# off (exit status 75) goes on when it is called again. Variables:
#
#   BIN      the program (./sambatrain; built with `go build -o sambatrain ./cmd/sambatrain`)
#   RUNS     folder of the runs (runs/longcontext)
#   OUT      folder of what is collected (RUNS/results)
#   MODELS   samba mistral mamba llama
#   LIMIT    seconds that all stages of this call may take (540)
#   DEVICE   cuda, with DTYPE bfloat16; DEVICE=cpu DTYPE=float32 for a machine without a GPU
#   TINY=1   a minute's worth on a CPU, to try the script: the numbers mean nothing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-./sambatrain}
runs=${RUNS:-runs/longcontext}
out=${OUT:-$runs/results}
models=${MODELS:-samba mistral mamba llama}
device=${DEVICE:-cuda} dtype=${DTYPE:-bfloat16}
limit=${LIMIT:-540}

lengths=512,1k,2k,4k,8k,16k,32k,64k,128k,256k,512k,1m texts=2
keys=1k,2k,4k,8k,16k,32k,64k,128k,256k depths=11 samples=5
# Full attention's work grows with the square of the length, and it breaks early.
full_lengths=512,1k,2k,4k,8k,16k,32k full_keys=1k,2k,4k,8k,16k,32k
chunk=4096 recall_batch=5
train=() # more flags of training
key_steps=400 key_batch=64 key_micro=32
tune=(--set optim.lr=5e-4 --set optim.min_lr=5e-5 --set optim.warmup_steps=50)
prompts=1k,2k,4k,8k,16k,32k,64k,128k prompt_tokens=128k positions=0,1k,4k,16k,64k
speed_models="samba-1.7b mistral-1.6b llama3-1.6b"
if [ -n "${TINY:-}" ]; then
	device=cpu dtype=float32
	lengths=128,256,512 texts=2 keys=300,600 depths=3 samples=1 full_lengths=128,256 full_keys=300 chunk=128 recall_batch=1
	small=(--set model.d_model=32 --set model.layers.repeat=1 --set 'model.attention={heads: 2, kv_heads: 2, head_dim: 16, window: 32}' --set model.mlp.d_ff=64)
	text=(--set "data.text={path: $here/../../docs, include: ['**/*.md']}" --set "data.shards=$runs/shards" --set data.validation_fraction=0.4)
	train=("${small[@]}" "${text[@]}" --set data.seq_len=64 --set train.batch_size=4 --steps 4 --set optim.warmup_steps=1 --set eval.rows=2 --set eval.every=0)
	key_steps=2 key_batch=2 key_micro=2
	tune+=(--set optim.warmup_steps=1 --set data.seq_len=300)
	prompts=16,32 prompt_tokens=64 positions=0,16 speed_models=quickstart
fi

started=$SECONDS
# step NAME MODEL COMMAND... runs a command once; NAME-MODEL.done says that it ran. Where
# time runs out, the command is told to stop, so that it can save.
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

# begin_or_resume RUN_DIR COMMAND... goes on with a run, or begins it.
begin_or_resume() {
	local run=$1
	shift
	if [ -e "$run/config.resolved.yaml" ]; then exec "$bin" resume "$run"; else exec "$@"; fi
}
export -f begin_or_resume
export bin

stage() {
	local m=$2 ppl=$lengths key=$keys
	[ "$m" != llama ] || ppl=$full_lengths key=$full_keys
	case $1 in
	train)
		step train "$m" bash -c 'begin_or_resume "$@"' - "$runs/$m" "$bin" pretrain "$here/$m.yaml" --out "$runs/$m" \
			--device "$device" --dtype "$dtype" "${train[@]}"
		;;
	passkey)
		step passkey "$m" bash -c 'begin_or_resume "$@"' - "$runs/$m-passkey" "$bin" finetune "$runs/$m" --task passkey --out "$runs/$m-passkey" \
			--steps "$key_steps" --set train.batch_size="$key_batch" --set train.micro_batch="$key_micro" "${tune[@]}"
		;;
	ppl)
		step ppl "$m" "$bin" eval ppl "$runs/$m" --lengths "$ppl" --texts "$texts" --rows "$texts" --chunk "$chunk"
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
		for run in "$m" "$m-passkey"; do
			for f in config.resolved.yaml metrics.jsonl eval/ppl eval/passkey; do
				[ -e "$runs/$run/$f" ] || continue
				mkdir -p "$out/$run/$(dirname "$f")"
				cp -r "$runs/$run/$f" "$out/$run/$(dirname "$f")/"
			done
		done
	done
	cp "$runs"/*.log "$out/"
	local measured=()
	for m in $models; do [ ! -e "$runs/$m/eval/ppl/lengths.csv" ] || measured+=("$runs/$m"); done
	[ ${#measured[@]} -eq 0 ] || "$bin" eval curves "${measured[@]}" --out "$out/ppl.png" >"$out/ppl.md"
	du -sh "$out" >&2
}

[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
mkdir -p "$runs"
for s in "$@"; do
	case $s in
	data)
		# The settings are samba.yaml's, the variable as it is written there.
		"$bin" data prepare --text '$GOROOT/src' --include '**/*.go' --exclude '**/testdata/**' --validation-fraction 0.04 --shards runs/data/longcontext
		;;
	train | passkey | ppl | recall) for m in $models; do stage "$s" "$m"; done ;;
	speed)
		for m in $speed_models; do
			step speed "$m" "$bin" bench generate "$m" --device "$device" --dtype "$dtype" --prompts "$prompts" --tokens "$prompt_tokens" \
				--positions "$positions" --rows 16
			step speed-one "$m" "$bin" bench generate "$m" --device "$device" --dtype "$dtype" --prompts "${prompts%%,*}" \
				--tokens "${prompts%%,*}" --positions 0,"${prompts%%,*}" --rows 1
		done
		;;
	collect) collect ;;
	*) echo "longcontext: no stage $s" >&2; exit 2 ;;
	esac
done
