#!/usr/bin/env bash
# Compares graph/cpu/simd's float32 matrix product with OpenBLAS (Debian: libopenblas-dev) and prints a
# markdown table: medians and ranges of GFLOP/s and of the ratio, over interleaved rounds. -c names OpenBLAS's
# kernel instead of SkylakeX or Haswell; with `-c own` OpenBLAS chooses it. With /bf16 (both factors rounded to
# bfloat16) or /bf16b (B stored in bfloat16) the comparison is with our own float32 product.
#
#   scripts/bench/gemm.sh [-l avx512|avx2] [-c CORE|own] [-r rounds] [MxNxK/NN|NT|TN|TT/threads[/bf16|/bf16b] ...]
set -euo pipefail
cd "$(dirname "$0")/../.."

level=avx512 rounds=5 core=
while getopts c:l:r: flag; do
  case $flag in
  c) core=$OPTARG ;;
  l) level=$OPTARG ;;
  r) rounds=$OPTARG ;;
  *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
case $level in
avx512) core=${core:-SkylakeX} ;;
avx2) core=${core:-Haswell} ;;
*) echo "gemm.sh: -l $level: use avx512 or avx2" >&2 && exit 2 ;;
esac

shapes=("$@")
if [ ${#shapes[@]} = 0 ]; then
  for threads in 1 2; do
    shapes+=(
      1024x1024x1024/NN/$threads 4096x4096x1536/NN/$threads
      4096x4096x1536/NT/$threads 4096x1536x4096/NN/$threads # a linear layer's forward and dX
      4096x1536x4096/TN/$threads                            # its dW
      4096x80x1536/NT/$threads 4096x1536x48/NT/$threads     # Mamba's x_proj and dt_proj
      80x1536x4096/TN/$threads 1536x48x4096/TN/$threads     # their dW
      1023x1025x1027/NT/$threads 64x64x64/NT/$threads 64x64x64/NN/$threads
      1x4096x1536/NT/$threads 1x4096x1536/NN/$threads 8x4096x1536/NT/$threads # decoding
    )
  done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -o "$work/openblas_gemm" scripts/bench/openblas_gemm.c -lopenblas
go test -c -o "$work/simd.test" ./graph/cpu/simd

# ours SHAPE THREADS prints our GFLOP/s.
ours() {
  SAMBATRAIN_SIMD=$set GOMAXPROCS=$2 "$work/simd.test" \
    -test.run '^$' -test.bench '^BenchmarkGemm$' -test.benchtime 9x -gemm "$1" |
    awk '/GFLOP/ {for (i = 2; i <= NF; i++) if ($i == "GFLOP/s") print $(i-1)}'
}

for ((round = 0; round < rounds; round++)); do
  for shape in "${shapes[@]}"; do
    IFS=x/ read -r m n k transposes threads bf16 <<<"$shape"
    set=$level
    if [ -n "$bf16" ] && [ $level = avx512 ]; then set=; fi # with AVX512-BF16, where the CPU has it
    mine=$(ours "$shape" $threads)
    if [ -n "$bf16" ]; then
      theirs=$(ours "${shape%/*}" $threads)
    elif [ "$core" = own ]; then
      theirs=$("$work/openblas_gemm" "$m" "$n" "$k" "$transposes" "$threads" 9)
    else
      theirs=$(OPENBLAS_CORETYPE=$core "$work/openblas_gemm" "$m" "$n" "$k" "$transposes" "$threads" 9)
    fi
    echo "$shape $mine ${theirs% *}"
  done
done >"$work/rates"

# Prints the median and range of the numbers on standard input, with the given number of decimals.
median() {
  sort -n | awk -v d="$1" '{x[NR] = $1} END {f = "%." d "f"; printf f " (" f "-" f ")", x[int((NR + 1) / 2)], x[1], x[NR]}'
}
peer="OpenBLAS $core"
if [[ ${shapes[0]} == */*/*/* ]]; then peer="our float32"; fi
echo "| M x N x K | stored | threads | ours GFLOP/s | $peer GFLOP/s | ratio |"
echo "|---|---|---|---|---|---|"
for shape in "${shapes[@]}"; do
  IFS=/ read -r size transposes threads bf16 <<<"$shape"
  ours=$(awk -v s="$shape" '$1 == s {print $2}' "$work/rates" | median 1)
  theirs=$(awk -v s="$shape" '$1 == s {print $3}' "$work/rates" | median 1)
  ratio=$(awk -v s="$shape" '$1 == s {print $2 / $3}' "$work/rates" | median 2)
  echo "| $size | $transposes${bf16:+ $bf16} | $threads | $ours | $theirs | $ratio |"
done
