// Sums across threads, for the backward pass. LANES is 4.

// mma_16x8x8: D += A B, tf32 with float accumulators, one warp (PTX mma.m16n8k8). The low 13 bits
// of the operands are ignored.
__device__ __forceinline__ void mma_16x8x8(float d[4], const float a[4], const float b[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// sum_over_lanes sums x over a channel's lanes.
__device__ __forceinline__ float sum_over_lanes(float x) {
  x += __shfl_xor_sync(FULL, x, 1);
  return x + __shfl_xor_sync(FULL, x, 2);
}

// Sums over a channel's states, for each of the thread's channels c. The sum of token i of the
// group is needed in the lanes of part i. In mixed precision the tensor cores compute the sums,
// with 11 significant bits per operand.

// sum_products computes the sum of x, states of token i, times a row of Bm (matrix 1) or Cm (0).
// weights is the lane's right operand: of token lane/8, Bm if lane/4 is odd, otherwise Cm.
__device__ __forceinline__ void sum_products(float sums[TILE], const float x[TILE][PER], const float row[PER],
                                             const float weights[PER], int i, int matrix, int part) {
#ifdef FAST
  // Column 2i+matrix of the product of the rows x of 16 channels and all weights.
  float d[4] = {};
#pragma unroll
  for (int k = 0; k < PER; k += 2) {
    float a[4] = {x[0][k], x[TILE - 1][k], x[0][k + 1], x[TILE - 1][k + 1]};
    mma_16x8x8(d, a, weights + k);
  }
#pragma unroll
  for (int c = 0; c < TILE; c++) sums[c] = part == i ? d[2 * c + matrix] : sums[c];
#else
#pragma unroll
  for (int c = 0; c < TILE; c++) {
    float sum = 0.f;
#pragma unroll
    for (int k = 0; k < PER; k++) sum = fmaf(x[c][k], row[k], sum);
    sum = sum_over_lanes(sum);
    sums[c] = part == i ? sum : sums[c];
  }
#endif
}

// sum_lanes sums the lanes' values for tokens i and i+1, pair[0] and pair[1].
__device__ __forceinline__ void sum_lanes(float sums[TILE], const float pair[2][TILE], int i, int lane) {
#ifdef FAST
  // A product with ones in the columns of these tokens.
  float a[4] = {pair[0][0], pair[0][TILE - 1], pair[1][0], pair[1][TILE - 1]}, d[4] = {};
  float to[2] = {lane / 8 == i ? 1.f : 0.f, lane / 8 == i + 1 ? 1.f : 0.f};
  mma_16x8x8(d, a, to);
#pragma unroll
  for (int c = 0; c < TILE; c++) sums[c] = lane % 4 / 2 == i / 2 ? d[2 * c] : sums[c];
#else
#pragma unroll
  for (int t = 0; t < 2; t++)
#pragma unroll
    for (int c = 0; c < TILE; c++) {
      float sum = sum_over_lanes(pair[t][c]);
      sums[c] = lane % LANES == i + t ? sum : sums[c];
    }
#endif
}

// column_sums adds x over the warp's columns, which hold the same states of different channels.
// Round r gives each lane one of 32 sums: with q = 2r + lane/16, the sum of x[4q + lane%4] over the
// lanes of part lane%16/4. room is 256 floats per warp.
__device__ __forceinline__ void column_sums(float *room, const float x[2 * PER], float sums[PER / 4], int lane) {
  // The upper lanes read the columns in a different order to avoid bank conflicts.
  const float *even = room + lane / 16 * 144 + lane % 16, *odd = room + lane / 16 * 112 + lane % 16;
#pragma unroll
  for (int r = 0; r < PER / 4; r++) {
    store4(room + lane * 4, x + 8 * r);
    store4(room + 128 + lane * 4, x + 8 * r + 4);
    __syncwarp();
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = (i % 2 ? odd : even)[i * 16];
    sums[r] = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
    __syncwarp();
  }
}
