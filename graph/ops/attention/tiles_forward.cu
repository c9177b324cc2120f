constexpr int ROWS = 16 * ROW_TILES;   // queries of a warp
constexpr int QUERIES = WARPS * ROWS;  // of a block
constexpr int SCORES = STEP / 8;       // accumulators of STEP keys

// A block takes QUERIES queries of one head, and passes over the keys that they see,
// STEP at a time, while the next ones are on their way. scale is log2(e) / sqrt(D).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_tiles(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *o, float *lse, int tokens, int group, int window, float scale,
                const int *start, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_o, int64_t stride_lse) {
  bf16 *queries = memory, *keys = queries + QUERIES * D, *values = keys + 2 * STEP * D;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, h = blockIdx.y;
  int first = (gridDim.x - 1 - blockIdx.x) * QUERIES; // the last queries see the most keys: they begin
  int own = first + warp * ROWS;                      // the warp's first query
  int64_t text = (int64_t)blockIdx.z * tokens;
  q += text * stride_q + h * D, o += text * stride_o + h * D, lse += text * stride_lse + h;
  k += text * stride_k + h / group * D, v += text * stride_v + h / group * D;
  start += text;
  // Keys before `some` are seen by none of the warp's queries, from `all` on by each that isn't before them.
  int some = first_key(start, own, tokens, window), all = first_key(start, own + ROWS - 1, tokens, window);

  int step = first_key(start, first, tokens, window) / STEP, last = (min(first + QUERIES, tokens) - 1) / STEP;
  load_tile<QUERIES>(queries, q, stride_q, first, tokens);
  load_tile<STEP>(keys, k, stride_k, step * STEP, tokens);
  load_tile<STEP>(values, v, stride_v, step * STEP, tokens);
  copy_async_commit();

  float sum[ROW_TILES][D / 8][4];
  Weights weights[ROW_TILES];
#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) {
    clear<D / 8>(sum[r]);
    weights[r].greatest[0] = weights[r].greatest[1] = -INF;
    weights[r].sum[0] = weights[r].sum[1] = 0.f;
  }

  for (int stage = 0; step <= last; step++, stage ^= 1) {
    // This step's keys are here, and all warps are done with the step before, whose
    // place the next keys take.
    copy_async_wait<0>();
    __syncthreads();
    int j0 = step * STEP;
    if (step < last) {
      load_tile<STEP>(keys + (stage ^ 1) * STEP * D, k, stride_k, j0 + STEP, tokens);
      load_tile<STEP>(values + (stage ^ 1) * STEP * D, v, stride_v, j0 + STEP, tokens);
      copy_async_commit();
    }
    if (own >= tokens || j0 > own + ROWS - 1 || j0 + STEP - 1 < some) continue;

    bf16 *key = keys + stage * STEP * D, *value = values + stage * STEP * D;
    float s[ROW_TILES][SCORES][4];
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) clear<SCORES>(s[r]);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t a[ROW_TILES][4], b[4];
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) load_left(a[r], queries, warp * ROWS + 16 * r, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, key, j, c);
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) multiply(s[r] + j / 8, a[r], b);
      }
    }

    if (j0 + STEP - 1 > own || j0 < all) {
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
        for (int j = 0; j < SCORES; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            int query = own + 16 * r + lane / 4 + e / 2 * 8, at = j0 + 8 * j + lane % 4 * 2 + e % 2;
            if (at > query || at < first_key(start, query, tokens, window)) s[r][j][e] = -INF;
          }
        }
      }
    }

#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
      float shrink[2];
      weights[r].update<SCORES>(s[r], scale, shrink);
#pragma unroll
      for (int c = 0; c < D / 8; c++) {
        sum[r][c][0] *= shrink[0], sum[r][c][1] *= shrink[0];
        sum[r][c][2] *= shrink[1], sum[r][c][3] *= shrink[1];
      }
    }
#pragma unroll
    for (int j = 0; j < STEP; j += 16) {
      uint32_t a[ROW_TILES][4], b[4];
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) round_left(a[r], s[r] + j / 8);
#pragma unroll
      for (int c = 0; c < D; c += 16) {
        load_right(b, value, j, c);
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) multiply(sum[r] + c / 8, a[r], b);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = weights[r].sum[half];
      total += __shfl_xor_sync(FULL, total, 1);
      total += __shfl_xor_sync(FULL, total, 2);
      inverse[half] = 1.f / total;
      int query = own + 16 * r + lane / 4 + 8 * half;
      if (lane % 4 == 0 && query < tokens) lse[query * stride_lse] = weights[r].greatest[half] * (scale / LOG2E) + logf(total);
    }
    put_rows<D>(sum[r], inverse, queries, warp * ROWS + 16 * r, 0, o, stride_o, own + 16 * r, tokens);
  }
}
