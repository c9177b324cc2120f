// A block handles QUERIES queries of one head and loops over the keys that they see, STEP at a
// time, while the next ones are being loaded. scale is log2(e) / sqrt(D).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_tiles(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *o, float *lse, int tokens, int group, int window, float scale,
                const int *start, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_o, int64_t stride_lse) {
  bf16 *queries = memory, *keys = queries + QUERIES * D, *values = keys + 2 * STEP * D;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, h = blockIdx.y;
  int first = (gridDim.x - 1 - blockIdx.x) * QUERIES; // the last queries see the most keys, so they start first
  int own = first + warp * ROWS;                      // the warp's first query
  int64_t text = (int64_t)blockIdx.z * tokens;
  q += text * stride_q + h * D, o += text * stride_o + h * D, lse += text * stride_lse + h;
  k += text * stride_k + h / group * D, v += text * stride_v + h / group * D;
  start += text;
  // Keys before `some` are seen by none of the warp's queries; keys from `all` on by every query
  // that isn't before them.
  int some = first_key(start, own, tokens, window), all = first_key(start, own + ROWS - 1, tokens, window);

  int step = first_key(start, first, tokens, window) / STEP, last = (min(first + QUERIES, tokens) - 1) / STEP;
  load_tile<QUERIES>(queries, q, stride_q, first, tokens);
  load_tile<STEP>(keys, k, stride_k, step * STEP, tokens);
  load_tile<STEP>(values, v, stride_v, step * STEP, tokens);
  copy_async_commit();

  Queries mine;
  for (int stage = 0; step <= last; step++, stage ^= 1) {
    // This step's keys have arrived, and all warps are done with the previous step, whose buffer
    // the next keys will use.
    copy_async_wait<0>();
    __syncthreads();
    int j0 = step * STEP;
    if (step < last) {
      load_tile<STEP>(keys + (stage ^ 1) * STEP * D, k, stride_k, j0 + STEP, tokens);
      load_tile<STEP>(values + (stage ^ 1) * STEP * D, v, stride_v, j0 + STEP, tokens);
      copy_async_commit();
    }
    if (own >= tokens || j0 > own + ROWS - 1 || j0 + STEP - 1 < some) continue;

    bool edge = j0 + STEP - 1 > own || j0 < all;
    mine.take(queries, warp * ROWS, keys + stage * STEP * D, values + stage * STEP * D, scale, edge, [&](int i, int j) {
      return j0 + j > own + i || j0 + j < first_key(start, own + i, tokens, window);
    });
  }

#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = mine.total(r, half);
      inverse[half] = 1.f / total;
      int query = own + 16 * r + lane / 4 + 8 * half;
      if (lane % 4 == 0 && query < tokens) lse[query * stride_lse] = mine.weights[r].greatest[half] * (scale / LOG2E) + logf(total);
    }
    put_rows<D>(mine.sum[r], inverse, queries, warp * ROWS + 16 * r, 0, o, stride_o, own + 16 * r, tokens);
  }
}
