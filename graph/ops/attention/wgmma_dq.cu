// The gradient of the queries. A block takes QUERIES queries of one head, each
// warpgroup 64 of them, and passes over the keys that they see, STEP at a time.

constexpr int QUERIES = 16 * WARPS; // of a block
constexpr int SCORES = STEP / 8;    // accumulators of STEP keys
constexpr int STAGES = 3;           // of keys: those to come, these, and those that the last product reads

// scale is 1 / sqrt(D). lse2 and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_dq_warpgroups(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse2, const float *delta, bf16 *dq,
                        int tokens, int padded, int group, int window, float scale, int64_t stride_q, int64_t stride_k,
                        int64_t stride_v, int64_t stride_do, int64_t stride_dq) {
  bf16 *queries = memory, *douts = queries + QUERIES * D, *keys = douts + QUERIES * D, *values = keys + STAGES * STEP * D;
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP, h = blockIdx.y;
  int first = (gridDim.x - 1 - blockIdx.x) * QUERIES; // the last queries see the most keys: they begin
  int own = first + warp * 16;
  int64_t text = (int64_t)blockIdx.z * tokens, statistics = ((int64_t)blockIdx.z * gridDim.y + h) * padded + own + lane / 4;
  q += text * stride_q + h * D, dout += text * stride_do + h * D, dq += text * stride_dq + h * D;
  k += text * stride_k + h / group * D, v += text * stride_v + h / group * D;

  int step = max(0, first - window + 1) / STEP, last = (min(first + QUERIES, tokens) - 1) / STEP;
  load_panels<QUERIES>(queries, q, stride_q, first, tokens);
  load_panels<QUERIES>(douts, dout, stride_do, first, tokens);
  load_panels<STEP>(keys, k, stride_k, step * STEP, tokens);
  load_panels<STEP>(values, v, stride_v, step * STEP, tokens);
  copy_async_commit();
  float lse2_i[2] = {lse2[statistics], lse2[statistics + 8]}, delta_i[2] = {delta[statistics], delta[statistics + 8]};

  const bf16 *query = queries + warp / 4 * 64 * PANEL, *douti = douts + warp / 4 * 64 * PANEL;
  float sum[D / 8][4], p[SCORES][4], ds[SCORES][4];
  uint32_t ds_left[STEP / 16][4];
  clear<D / 8>(sum);

  // A warpgroup begins a step when the other one has both products of the step before:
  // they may be most of a step apart, and one multiplies while the other computes
  // weights. Barriers alternate, since one may be passed by when the next is reached.
  bool second = warp >= 4;
  arrived();
  for (int stage = 0, half = 0, begin = step; step <= last; step++, half ^= 1) {
    // These keys and values are here. Both warpgroups are done with the values of the
    // step before, and with the keys of the one before that.
    if (step > begin) barrier_wait(1 + second + (half ^ 1) * 2, THREADS);
    int j0 = step * STEP, next = stage == STAGES - 1 ? 0 : stage + 1;
    if (step < last) {
      load_panels<STEP>(keys + next * STEP * D, k, stride_k, j0 + STEP, tokens);
      load_panels<STEP>(values + (half ^ 1) * STEP * D, v, stride_v, j0 + STEP, tokens);
      copy_async_commit();
    }
    const bf16 *key = keys + stage * STEP * D, *value = values + half * STEP * D;
    stage = next;

    wgmma_fence();
    multiply_rows<QUERIES, STEP>(p, query, key);
    wgmma_commit();
    multiply_rows<QUERIES, STEP>(ds, douti, value);
    wgmma_commit();
    wgmma_wait<1>(); // for the scores, and the sum of the step before
    settle<SCORES>(p), settle<D / 8>(sum);
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) p[j][e] = fast_exp2(p[j][e] * (scale * LOG2E) - lse2_i[e / 2]);
    }
    if (j0 + STEP - 1 > own || j0 <= own + 15 - window) {
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int query = own + lane / 4 + e / 2 * 8, at = j0 + 8 * j + lane % 4 * 2 + e % 2;
          if (at > query || at <= query - window) p[j][e] = 0.f;
        }
      }
    }
    wgmma_wait<0>();
    settle<SCORES>(ds);
    copy_async_wait<0>();
    fence_async_proxy();
    if (step < last) barrier_arrive(2 - second + half * 2, THREADS);
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) ds[j][e] = p[j][e] * (ds[j][e] - delta_i[e / 2]);
    }
    round_weights<STEP>(ds_left, ds);
    settle<STEP / 16>(ds_left);
    wgmma_fence();
    multiply_weights<STEP>(sum, ds_left, key);
    wgmma_commit();
  }
  wgmma_wait<0>();
  settle<D / 8>(sum);

  __syncthreads(); // all warps are done with queries
  float scales[2] = {scale, scale};
  put_rows<D>(sum, scales, queries, warp * 16, 0, dq, stride_dq, own, tokens);
}
