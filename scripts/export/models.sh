#!/usr/bin/env bash
# Trains a small model of each family and exports it in format hf, with its logits for a text, for
# transformers_check.py:
#
#     scripts/export/models.sh runs/export
#     python3 scripts/export/transformers_check.py runs/export/models
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: models.sh FOLDER}
export CGO_ENABLED=0
mkdir -p "$out/models"
go build -o "$out/sambatrain" ./cmd/sambatrain
prompt=$'func main() {\n\tfor i := range 10 {\n\t\tfmt.Println(i)\n\t}\n}\n// Sort sorts x in place.'

# model NAME FLAGS_OF_EXPORT SETTING...
model() {
	local name=$1 flags=$2 sets=()
	shift 2
	for s in "$@"; do sets+=(--set "$s"); done
	rm -rf "$out/$name" "$out/models/$name"
	"$out/sambatrain" --log-level warn pretrain scripts/export/small.yaml --out "$out/$name" --set "data.shards=$out/shards" "${sets[@]}" >"$out/$name.txt" 2>&1 ||
		{ cat "$out/$name.txt"; exit 1; }
	# shellcheck disable=SC2086
	"$out/sambatrain" export "$out/$name" --format hf --out "$out/models/$name" $flags
	"$out/sambatrain" logits "$out/$name" --prompt "$prompt" --out "$out/models/$name.safetensors"
}

model mamba "" 'model.layers.pattern=[mamba]' model.layers.repeat=4
model mamba-untied "--max-shard-size 100KB" 'model.layers.pattern=[mamba]' model.tie_embeddings=false 'model.mamba={expand: 3, d_state: 8, d_conv: 3, dt_rank: 5}'
model llama "" 'model.layers.pattern=[attn, mlp]' model.mlp.d_ff=200
model llama-untied "--dtype bfloat16" 'model.layers.pattern=[attn, mlp]' model.tie_embeddings=false model.attention.head_dim=32 model.attention.rope_base=500000
model mistral "" 'model.layers.pattern=[swa, mlp]'
model mistral-f16 "--dtype float16 --max-shard-size 150KB" 'model.layers.pattern=[swa, mlp]'
model samba "" 'model.layers.pattern=[mamba, mlp, swa, mlp]'
model samba-wide "" 'model.layers.pattern=[mamba, mlp, mamba, mlp, attn, mlp]' model.layers.repeat=1 model.mlp.d_ff=768 model.d_model=144 model.attention.kv_heads=1
model mamba-mlp "" 'model.layers.pattern=[mamba, mlp]'
