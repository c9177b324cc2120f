// The gradient of the queries. A block handles QUERIES queries of one head and loops over the keys
// that they see, STEP at a time. It recomputes the logits of attention_dkv_tiles. That costs more
// than adding up partial results from that kernel, but no sum depends on the order in which blocks
// run.

constexpr int QUERIES = 16 * WARPS; // per block
constexpr int SCORES = STEP / 8;    // accumulators for STEP keys
constexpr bool KEEP = D <= 128;     // queries and do fit in registers

// scale is 1 / sqrt(D). lse2 and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_dq_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse2, const float *delta, bf16 *dq,
                   int tokens, int padded, int group, int window, float scale, const int *start, int64_t stride_q, int64_t stride_k,
                   int64_t stride_v, int64_t stride_do, int64_t stride_dq) {
  bf16 *queries = memory, *douts = queries + QUERIES * D, *keys = douts + QUERIES * D, *values = keys + 2 * STEP * D;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, h = blockIdx.y;
  int first = (gridDim.x - 1 - blockIdx.x) * QUERIES; // the last queries see the most keys, so they start first
  int row = warp * 16, own = first + row;
  int64_t text = (int64_t)blockIdx.z * tokens, statistics = ((int64_t)blockIdx.z * gridDim.y + h) * padded + own + lane / 4;
  q += text * stride_q + h * D, dout += text * stride_do + h * D, dq += text * stride_dq + h * D;
  k += text * stride_k + h / group * D, v += text * stride_v + h / group * D;
  start += text;
  // Keys before `some` are seen by none of the warp's queries; keys from `all` on by every query
  // that isn't before them.
  int some = first_key(start, own, tokens, window), all = first_key(start, own + 15, tokens, window);

  int step = first_key(start, first, tokens, window) / STEP, last = (min(first + QUERIES, tokens) - 1) / STEP;
  load_tile<QUERIES>(queries, q, stride_q, first, tokens);
  load_tile<QUERIES>(douts, dout, stride_do, first, tokens);
  load_tile<STEP>(keys, k, stride_k, step * STEP, tokens);
  load_tile<STEP>(values, v, stride_v, step * STEP, tokens);
  copy_async_commit();
  float lse2_i[2] = {lse2[statistics], lse2[statistics + 8]}, delta_i[2] = {delta[statistics], delta[statistics + 8]};

  uint32_t kept_q[KEEP ? D / 16 : 1][4], kept_do[KEEP ? D / 16 : 1][4];
  if constexpr (KEEP) {
    copy_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int c = 0; c < D; c += 16) load_left(kept_q[c / 16], queries, row, c), load_left(kept_do[c / 16], douts, row, c);
  }

  float sum[D / 8][4];
  clear<D / 8>(sum);
  for (int stage = 0; step <= last; step++, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();
    int j0 = step * STEP;
    if (step < last) {
      load_tile<STEP>(keys + (stage ^ 1) * STEP * D, k, stride_k, j0 + STEP, tokens);
      load_tile<STEP>(values + (stage ^ 1) * STEP * D, v, stride_v, j0 + STEP, tokens);
      copy_async_commit();
    }
    if (own >= tokens || j0 > own + 15 || j0 + STEP - 1 < some) continue;

    bf16 *key = keys + stage * STEP * D, *value = values + stage * STEP * D;
    float p[SCORES][4], ds[SCORES][4];
    clear<SCORES>(p), clear<SCORES>(ds);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t loaded[4], b[4], *a = kept_q[KEEP ? c / 16 : 0];
      if constexpr (!KEEP) load_left(a = loaded, queries, row, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, key, j, c);
        multiply(p + j / 8, a, b);
      }
    }
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t loaded[4], b[4], *a = kept_do[KEEP ? c / 16 : 0];
      if constexpr (!KEEP) load_left(a = loaded, douts, row, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, value, j, c);
        multiply(ds + j / 8, a, b);
      }
    }
    bool border = j0 + STEP - 1 > own || j0 < all;
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float weight = fast_exp2(p[j][e] * (scale * LOG2E) - lse2_i[e / 2]);
        int query = own + lane / 4 + e / 2 * 8, at = j0 + 8 * j + lane % 4 * 2 + e % 2;
        if (border && (at > query || at < first_key(start, query, tokens, window))) weight = 0.f;
        ds[j][e] = weight * (ds[j][e] - delta_i[e / 2]);
      }
    }
#pragma unroll
    for (int j = 0; j < STEP; j += 16) {
      uint32_t a[4], b[4];
      round_left(a, ds + j / 8);
#pragma unroll
      for (int c = 0; c < D; c += 16) {
        load_right(b, key, j, c);
        multiply(sum + c / 8, a, b);
      }
    }
  }

  float scales[2] = {scale, scale};
  put_rows<D>(sum, scales, queries, row, 0, dq, stride_dq, own, tokens);
}
