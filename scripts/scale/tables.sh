#!/usr/bin/env bash
# Prints the tables of docs/scale.md.
#
# usage: scripts/scale/tables.sh [SAMBATRAIN]
set -euo pipefail
cd "$(dirname "$0")/../.."
program=("${1:-}")
[ -n "${program[0]}" ] || program=(go run ./cmd/sambatrain)

# table RECIPE GPUS MORE: with the recipe's batch, and more of them with one of 4,096 rows.
table() {
	printf '\n### %s\n\n' "$1"
	"${program[@]}" plan "$1" --gpus "$2" --output markdown
	"${program[@]}" plan "$1" --gpus "$3" --set train.batch_size=4096 --output markdown | tail -n +3
}
table samba-421m 1,2,4,8,16,64,256,512 1024,4096
table samba-1.3b 1,2,4,8,16,64,256,512 1024,4096
table samba-1.7b 1,2,4,8,16,64,256,1024,2048 4096
table samba-3.8b 1,2,4,8,16,64,256,1024,2048 4096
