constexpr int QUERIES = 16 * WARPS; // of a block
constexpr int SCORES = STEP / 8;    // accumulators of STEP keys

// A block takes QUERIES queries of one head, each warpgroup 64 of them, and passes
// over the keys that they see, STEP at a time. The next scores are multiplied while
// the weights of these are, so that tensor cores work during the softmax. scale is
// log2(e) / sqrt(D).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_warpgroups(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *o, float *lse, int tokens, int group, int window, float scale,
                     const int *start, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_o, int64_t stride_lse) {
  bf16 *queries = memory, *keys = queries + QUERIES * D, *values = keys + 2 * STEP * D;
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP, h = blockIdx.y;
  int first = (gridDim.x - 1 - blockIdx.x) * QUERIES; // the last queries see the most keys: they begin
  int own = first + warp * 16;                        // the warp's first query
  int64_t text = (int64_t)blockIdx.z * tokens;
  q += text * stride_q + h * D, o += text * stride_o + h * D, lse += text * stride_lse + h;
  k += text * stride_k + h / group * D, v += text * stride_v + h / group * D;
  start += text;
  int all = first_key(start, own + 15, tokens, window); // keys from here on are seen by each of the warp's queries that isn't before them

  int begin = first_key(start, first, tokens, window) / STEP, step = begin, last = (min(first + QUERIES, tokens) - 1) / STEP;
  load_panels<QUERIES>(queries, q, stride_q, first, tokens);
  load_panels<STEP>(keys, k, stride_k, step * STEP, tokens);
  copy_async_commit();
  arrived();
  if (step < last) load_panels<STEP>(keys + STEP * D, k, stride_k, (step + 1) * STEP, tokens);
  load_panels<STEP>(values, v, stride_v, step * STEP, tokens);
  copy_async_commit();

  const bf16 *query = queries + warp / 4 * 64 * PANEL;
  float s[SCORES][4], sum[D / 8][4], shrink[2];
  uint32_t w[STEP / 16][4];
  Weights weights = {{-INF, -INF}, {0.f, 0.f}};
  auto weigh = [&](int j0) {
    if (j0 + STEP - 1 > own || j0 < all) {
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int query = own + lane / 4 + e / 2 * 8, at = j0 + 8 * j + lane % 4 * 2 + e % 2;
          if (at > query || at < first_key(start, query, tokens, window)) s[j][e] = -INF;
        }
      }
    }
    weights.update<SCORES>(s, scale, shrink);
  };

  wgmma_fence();
  multiply_rows<QUERIES, STEP>(s, query, keys);
  wgmma_commit();
  wgmma_wait<0>();
  settle<SCORES>(s);
  weigh(step * STEP);
  round_weights<STEP>(w, s);
  clear<D / 8>(sum);

  // The two warpgroups take turns: while one multiplies scores, the other one computes
  // weights. The second begins a step when the first has this step's scores, the first
  // when the second has those of the step before.
  bool second = warp >= 4;
  int half = 0, third = 0; // where this step's keys and values are
  arrived();
  for (; step < last; step++) {
    // The next keys and these values are here. Both warpgroups are done with these keys,
    // and with the values before the last.
    if (second || step > begin) barrier_wait(1 + second, THREADS);
    int next = third == 2 ? 0 : third + 1;
    if (step + 2 <= last) load_panels<STEP>(keys + half * STEP * D, k, stride_k, (step + 2) * STEP, tokens);
    load_panels<STEP>(values + next * STEP * D, v, stride_v, (step + 1) * STEP, tokens);
    copy_async_commit();

    settle<D / 8>(sum), settle<STEP / 16>(w);
    wgmma_fence();
    multiply_rows<QUERIES, STEP>(s, query, keys + (half ^ 1) * STEP * D);
    wgmma_commit();
    multiply_weights<STEP>(sum, w, values + third * STEP * D);
    wgmma_commit();
    wgmma_wait<1>();
    settle<SCORES>(s);
    copy_async_wait<0>();
    fence_async_proxy();
    if (!second || step + 1 < last) barrier_arrive(2 - second, THREADS);
    weigh((step + 1) * STEP);
    wgmma_wait<0>();
    settle<D / 8>(sum), settle<STEP / 16>(w);
#pragma unroll
    for (int c = 0; c < D / 8; c++) {
      sum[c][0] *= shrink[0], sum[c][1] *= shrink[0];
      sum[c][2] *= shrink[1], sum[c][3] *= shrink[1];
    }
    round_weights<STEP>(w, s);
    half ^= 1, third = next;
  }
  __syncthreads(); // the last values are here
  settle<D / 8>(sum), settle<STEP / 16>(w);
  wgmma_fence();
  multiply_weights<STEP>(sum, w, values + third * STEP * D);
  wgmma_commit();
  wgmma_wait<0>();
  settle<D / 8>(sum);

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float total = weights.sum[half];
    total += __shfl_xor_sync(FULL, total, 1);
    total += __shfl_xor_sync(FULL, total, 2);
    inverse[half] = 1.f / total;
    int query = own + lane / 4 + 8 * half;
    if (lane % 4 == 0 && query < tokens) lse[query * stride_lse] = weights.greatest[half] * (scale / LOG2E) + logf(total);
  }
  // All warps have been done with the queries since the last barrier.
  put_rows<D>(sum, inverse, queries, warp * 16, 0, o, stride_o, own, tokens);
}
