// The gradients of keys and values. A block takes KEYS keys of one key/value head,
// each warpgroup 64 of them, and passes over the queries that see them, of all heads
// that share it, STEP at a time. Scores are transposed, keys by queries: as they come
// out of one product they go into the next.

constexpr int KEYS = 16 * WARPS; // of a block
constexpr int SCORES = STEP / 8; // accumulators of STEP queries
constexpr int STAGES = 3;        // of queries: those to come, these, and those that the last products read

// scale is 1 / sqrt(D). lse2 and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_dkv_warpgroups(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse2, const float *delta, bf16 *dk,
                         bf16 *dv, int tokens, int padded, int group, int window, float scale, int64_t stride_q, int64_t stride_k,
                         int64_t stride_v, int64_t stride_do, int64_t stride_dk, int64_t stride_dv) {
  bf16 *keys = memory, *values = keys + KEYS * D, *queries = values + KEYS * D, *douts = queries + STAGES * STEP * D;
  float *statistics = (float *)(douts + STAGES * STEP * D); // of each stage lse2 and delta
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP, key_head = blockIdx.y;
  int heads = gridDim.y * group;
  int first = blockIdx.x * KEYS, own = first + warp * 16; // the first keys are seen the most: they begin
  int64_t text = (int64_t)blockIdx.z * tokens;
  q += text * stride_q, dout += text * stride_do;
  k += text * stride_k + key_head * D, dk += text * stride_dk + key_head * D;
  v += text * stride_v + key_head * D, dv += text * stride_dv + key_head * D;

  int from = first / STEP, to = (int)(min((int64_t)tokens, (int64_t)first + KEYS - 1 + window) - 1) / STEP;
  int steps = to - from + 1; // of one head
  auto load_step = [&](int i, int stage) {
    int h = key_head * group + i / steps, i0 = (from + i % steps) * STEP;
    load_panels<STEP>(queries + stage * STEP * D, q + h * D, stride_q, i0, tokens);
    load_panels<STEP>(douts + stage * STEP * D, dout + h * D, stride_do, i0, tokens);
    if (threadIdx.x < STEP / 2) {
      const float *x = threadIdx.x < STEP / 4 ? lse2 : delta;
      int c = threadIdx.x % (STEP / 4) * 4;
      copy_async16(statistics + 2 * STEP * stage + threadIdx.x * 4, x + ((int64_t)blockIdx.z * heads + h) * padded + i0 + c);
    }
    copy_async_commit();
  };
  load_panels<KEYS>(keys, k, stride_k, first, tokens);
  load_panels<KEYS>(values, v, stride_v, first, tokens);
  load_step(0, 0);

  const bf16 *key = keys + warp / 4 * 64 * PANEL, *value = values + warp / 4 * 64 * PANEL;
  float dk_sum[D / 8][4], dv_sum[D / 8][4], p[SCORES][4], ds[SCORES][4];
  uint32_t p_left[STEP / 16][4], ds_left[STEP / 16][4];
  clear<D / 8>(dk_sum), clear<D / 8>(dv_sum);
  for (int i = 0, stage = 0; i < steps * group; i++) {
    arrived();
    int next = stage == STAGES - 1 ? 0 : stage + 1;
    if (i + 1 < steps * group) load_step(i + 1, next);
    int i0 = (from + i % steps) * STEP;
    const bf16 *query = queries + stage * STEP * D, *douti = douts + stage * STEP * D;
    const float *lse2_i = statistics + 2 * STEP * stage + lane % 4 * 2, *delta_i = lse2_i + STEP;
    stage = next;

    wgmma_fence();
    multiply_rows<KEYS, STEP>(p, key, query);
    wgmma_commit();
    multiply_rows<KEYS, STEP>(ds, value, douti);
    wgmma_commit();
    wgmma_wait<1>(); // for the scores, and the sums of the step before
    settle<SCORES>(p), settle<D / 8>(dk_sum), settle<D / 8>(dv_sum);
    bool border = i0 < own + 15 || i0 + STEP - 1 - window >= own;
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) p[j][e] = fast_exp2(p[j][e] * (scale * LOG2E) - lse2_i[8 * j + e % 2]);
    }
    if (border) {
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int key = own + lane / 4 + e / 2 * 8, at = i0 + 8 * j + lane % 4 * 2 + e % 2;
          if (key > at || key <= at - window) p[j][e] = 0.f;
        }
      }
    }
    round_weights<STEP>(p_left, p);
    settle<STEP / 16>(p_left);
    wgmma_fence();
    multiply_weights<STEP>(dv_sum, p_left, douti);
    wgmma_commit();
    wgmma_wait<1>();
    settle<SCORES>(ds);
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) ds[j][e] = p[j][e] * (ds[j][e] - delta_i[8 * j + e % 2]);
    }
    round_weights<STEP>(ds_left, ds);
    settle<STEP / 16>(ds_left);
    wgmma_fence();
    multiply_weights<STEP>(dk_sum, ds_left, query);
    wgmma_commit();
  }
  wgmma_wait<0>();
  settle<D / 8>(dk_sum), settle<D / 8>(dv_sum);

  __syncthreads(); // all warps are done with keys and values
  float scales[2] = {scale, scale}, ones[2] = {1.f, 1.f};
  put_rows<D>(dk_sum, scales, keys, warp * 16, 0, dk, stride_dk, own, tokens);
  put_rows<D>(dv_sum, ones, values, warp * 16, 0, dv, stride_dv, own, tokens);
}
