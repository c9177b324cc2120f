// Shared parts of the bf16 tensor-core kernels, which work on tiles of queries and keys
// (FlashAttention-2, arXiv 2307.08691).
//
// A warp multiplies 16 rows at a time with mma.m16n8k16. Of a 16 x 8 accumulator, lane l holds rows
// l/4 and l/4 + 8 and columns l%4*2 and l%4*2 + 1, in row order. Two adjacent accumulators,
// rounded, are the left operand of the next product, so weights never leave the registers.

constexpr int D = HEAD_DIM;
constexpr int THREADS = WARPS * WARP;
constexpr int CHUNKS = D / 8; // 16-byte chunks per tile row

extern __shared__ __align__(1024) bf16 memory[];

// A tile is rows of D channels in shared memory. Chunk c of a row is stored at position
// c ^ row % 8, so that the same chunk of 8 rows, which ldmatrix reads at once, is in different
// banks.
__device__ __forceinline__ bf16 *chunk(bf16 *tile, int row, int c) { return tile + row * D + ((c ^ (row & 7)) << 3); }

// load_tile starts copying Rows rows of x, from row `first` on, to a tile. Rows beyond the sequence
// are zeros.
template <int Rows>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *x, int64_t stride, int first, int tokens) {
  constexpr int PASS = THREADS / CHUNKS; // rows that the block copies at once
  static_assert(Rows % PASS == 0, "a tile is not a multiple of the block");
  int row = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
  x += (first + row) * stride + c * 8;
#pragma unroll
  for (int i = 0; i < Rows; i += PASS, x += PASS * stride)
    copy_async16(chunk(tile, row + i, c), x, first + row + i < tokens);
}

// load_left reads the left operand x[16 rows, 16 channels] starting at (row, channel). In the next
// three functions the lane's part of the address is separate from what the surrounding loops count,
// so little remains to be computed per iteration.
__device__ __forceinline__ void load_left(uint32_t a[4], bf16 *tile, int row, int channel) {
  int lane = threadIdx.x % WARP, r = lane % 16, c = lane / 16 ^ r % 8;
  ldmatrix4(a, tile + (row + r) * D + (channel ^ c << 3));
}

// load_transposed reads the right operand x'[16 channels, 16 rows]: b[0], b[1] hold the first 8
// rows, b[2], b[3] the others.
__device__ __forceinline__ void load_transposed(uint32_t b[4], bf16 *tile, int row, int channel) {
  int lane = threadIdx.x % WARP, r = lane % 8 + lane / 16 * 8, c = lane / 8 % 2 ^ r % 8;
  ldmatrix4(b, tile + (row + r) * D + (channel ^ c << 3));
}

// load_right reads the right operand x[16 rows, 16 channels]: b[0], b[1] hold the first 8 channels,
// b[2], b[3] the others.
__device__ __forceinline__ void load_right(uint32_t b[4], bf16 *tile, int row, int channel) {
  int lane = threadIdx.x % WARP, r = lane % 16, c = lane / 16 ^ r % 8;
  ldmatrix4_trans(b, tile + (row + r) * D + (channel ^ c << 3));
}

// multiply adds a b to the accumulators of 16 columns.
__device__ __forceinline__ void multiply(float sum[2][4], const uint32_t a[4], const uint32_t b[4]) {
  mma_16x8x16(sum[0], a, b);
  mma_16x8x16(sum[1], a, b + 2);
}

// round_left rounds the accumulators of 16 columns to a left operand.
__device__ __forceinline__ void round_left(uint32_t a[4], const float x[2][4]) {
  a[0] = pack_bf16(x[0][0], x[0][1]), a[1] = pack_bf16(x[0][2], x[0][3]);
  a[2] = pack_bf16(x[1][0], x[1][1]), a[3] = pack_bf16(x[1][2], x[1][3]);
}

template <int Tiles> __device__ __forceinline__ void clear(float x[Tiles][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; i++) x[i][0] = x[i][1] = x[i][2] = x[i][3] = 0.f;
}

// put_rows writes the accumulators of a warp's 16 rows to channels [channel, channel + Channels) of
// x, starting at row `first`. They go through the warp's rows of a tile that is no longer needed,
// so that they can be stored 16 bytes at a time. scale applies to rows lane/4 and lane/4 + 8.
template <int Channels>
__device__ __forceinline__ void put_rows(const float sum[Channels / 8][4], const float scale[2], bf16 *tile, int row, int channel,
                                         bf16 *x, int64_t stride, int first, int tokens) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int j = 0; j < Channels / 8; j++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      bf16 *to = chunk(tile, row + lane / 4 + 8 * half, channel / 8 + j) + lane % 4 * 2;
      *(uint32_t *)to = pack_bf16(sum[j][2 * half] * scale[half], sum[j][2 * half + 1] * scale[half]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 2 * Channels; i += WARP) {
    int r = (i + lane) / (Channels / 8), c = channel / 8 + (i + lane) % (Channels / 8);
    if (first + r < tokens) *(uint4 *)(x + (first + r) * stride + c * 8) = *(uint4 *)chunk(tile, row + r, c);
  }
}

// Weights is the online softmax of a warp's 16 queries, in base 2. For each of a lane's two rows it
// holds the maximum logit and the lane's share of the sum of weights.
struct Weights {
  float greatest[2], sum[2];

  // update turns logits into weights and returns the factors to apply to the earlier sums.
  template <int Scores> __device__ __forceinline__ void update(float s[Scores][4], float scale, float shrink[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float most = greatest[half];
#pragma unroll
      for (int j = 0; j < Scores; j++) most = fmaxf(most, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      most = fmaxf(most, __shfl_xor_sync(FULL, most, 1));
      most = fmaxf(most, __shfl_xor_sync(FULL, most, 2));
      // A query that has seen no key yet has no finite logit to subtract.
      float base = most == -INF ? 0.f : most * scale;
      shrink[half] = fast_exp2(greatest[half] * scale - base);
      greatest[half] = most, sum[half] *= shrink[half];
#pragma unroll
      for (int j = 0; j < Scores; j++) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) {
          s[j][e] = fast_exp2(s[j][e] * scale - base);
          sum[half] += s[j][e];
        }
      }
    }
  }
};
