// The gradients of keys and values. A block handles KEYS keys of one key/value head and loops over
// the queries that see them, in all heads that share the key head, STEP at a time. The logits are
// computed transposed, keys by queries, so that the accumulators of one product are the operand of
// the next.

constexpr int PARTS = D > 128 ? D / 128 : 1; // warps that share 16 keys, because the sums fill their registers
constexpr int OWN = D / PARTS;               // channels of dk and dv that a warp sums
constexpr int KEYS = 16 * WARPS / PARTS;     // per block
constexpr int SCORES = STEP / 8;             // accumulators for STEP queries

// scale is 1 / sqrt(D). lse2 and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_dkv_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse2, const float *delta, bf16 *dk,
                    bf16 *dv, int tokens, int padded, int group, int window, float scale, const int *start, int64_t stride_q, int64_t stride_k,
                    int64_t stride_v, int64_t stride_do, int64_t stride_dk, int64_t stride_dv) {
  bf16 *keys = memory, *values = keys + KEYS * D, *queries = values + KEYS * D, *douts = queries + 2 * STEP * D;
  float *statistics = (float *)(douts + 2 * STEP * D); // lse2 and delta of each stage
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, key_head = blockIdx.y, heads = gridDim.y * group;
  int first = blockIdx.x * KEYS; // the first keys are seen by the most queries, so they start first
  int row = warp / PARTS * 16, own = first + row, channel = warp % PARTS * OWN;
  int64_t text = (int64_t)blockIdx.z * tokens;
  start += text;
  q += text * stride_q, dout += text * stride_do;
  k += text * stride_k + key_head * D, dk += text * stride_dk + key_head * D;
  v += text * stride_v + key_head * D, dv += text * stride_dv + key_head * D;

  int from = first / STEP, to = (query_end(start, first + KEYS - 1, tokens, window) - 1) / STEP;
  int steps = to - from + 1; // per head
  auto load_step = [&](int i, int stage) {
    int h = key_head * group + i / steps, i0 = (from + i % steps) * STEP;
    load_tile<STEP>(queries + stage * STEP * D, q + h * D, stride_q, i0, tokens);
    load_tile<STEP>(douts + stage * STEP * D, dout + h * D, stride_do, i0, tokens);
    if (threadIdx.x < STEP / 2) {
      const float *x = threadIdx.x < STEP / 4 ? lse2 : delta;
      int c = threadIdx.x % (STEP / 4) * 4;
      copy_async16(statistics + 2 * STEP * stage + threadIdx.x * 4, x + ((int64_t)blockIdx.z * heads + h) * padded + i0 + c);
    }
    copy_async_commit();
  };
  load_tile<KEYS>(keys, k, stride_k, first, tokens);
  load_tile<KEYS>(values, v, stride_v, first, tokens);
  load_step(0, 0);

  float dk_sum[OWN / 8][4], dv_sum[OWN / 8][4];
  clear<OWN / 8>(dk_sum), clear<OWN / 8>(dv_sum);
  for (int i = 0, stage = 0; i < steps * group; i++, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();
    if (i + 1 < steps * group) load_step(i + 1, stage ^ 1);
    int i0 = (from + i % steps) * STEP;
    if (own >= tokens || i0 + STEP - 1 < own || first_key(start, i0, tokens, window) > own + 15) continue;

    bf16 *query = queries + stage * STEP * D, *douti = douts + stage * STEP * D;
    const float *lse2_i = statistics + 2 * STEP * stage + lane % 4 * 2, *delta_i = lse2_i + STEP;
    float p[SCORES][4], ds[SCORES][4];
    clear<SCORES>(p);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t a[4], b[4];
      load_left(a, keys, row, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, query, j, c);
        multiply(p + j / 8, a, b);
      }
    }
    bool border = i0 < own + 15 || first_key(start, i0 + STEP - 1, tokens, window) > own;
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        p[j][e] = fast_exp2(p[j][e] * (scale * LOG2E) - lse2_i[8 * j + e % 2]);
        int key = own + lane / 4 + e / 2 * 8, at = i0 + 8 * j + lane % 4 * 2 + e % 2;
        if (border && (key > at || key < first_key(start, at, tokens, window))) p[j][e] = 0.f;
      }
    }
#pragma unroll
    for (int j = 0; j < STEP; j += 16) {
      uint32_t a[4], b[4];
      round_left(a, p + j / 8);
#pragma unroll
      for (int c = 0; c < OWN; c += 16) {
        load_right(b, douti, j, channel + c);
        multiply(dv_sum + c / 8, a, b);
      }
    }

    clear<SCORES>(ds);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t a[4], b[4];
      load_left(a, values, row, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, douti, j, c);
        multiply(ds + j / 8, a, b);
      }
    }
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) ds[j][e] = p[j][e] * (ds[j][e] - delta_i[8 * j + e % 2]);
    }
#pragma unroll
    for (int j = 0; j < STEP; j += 16) {
      uint32_t a[4], b[4];
      round_left(a, ds + j / 8);
#pragma unroll
      for (int c = 0; c < OWN; c += 16) {
        load_right(b, query, j, channel + c);
        multiply(dk_sum + c / 8, a, b);
      }
    }
  }

  __syncthreads(); // warps that share keys have finished reading them
  float scales[2] = {scale, scale}, ones[2] = {1.f, 1.f};
  put_rows<OWN>(dk_sum, scales, keys, row, channel, dk, stride_dk, own, tokens);
  put_rows<OWN>(dv_sum, ones, values, row, channel, dv, stride_dv, own, tokens);
}
