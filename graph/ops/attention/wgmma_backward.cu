// The backward pass. A block handles KEYS keys of one key/value head and loops over the queries
// that see them, in all heads that share the key head, STEP at a time, to compute dk, dv and dq
// (FlashAttention-3, arXiv 2407.08608). The logits are computed transposed, keys by queries, so
// that the accumulators of one product are the operand of the next.
//
// dq is a sum over blocks of keys. Its tiles, float32, are accumulated in global memory: the block
// on the diagonal stores, and the blocks before it add, the nearest first. The order is always the
// same, so the result is bitwise reproducible. A block reaches a tile KEYS / STEP steps after the
// block that it follows there, which has started earlier, so it hardly ever waits.
//
// Two warpgroups multiply, with 64 keys each and PART queries at a time; for dq each has PART
// queries and PART channels (one of STEP and D is twice PART). In the third warpgroup, one thread
// copies queries, and one warp adds tiles of dq.

constexpr int KEYS = 128;           // per block
constexpr int PART = 64;            // queries, and channels of dq
constexpr int PARTS = STEP / PART;
constexpr int SCORES = PART / 8;    // accumulators for PART columns
constexpr int PRODUCTS = 256;       // threads that multiply
constexpr int TILE = STEP * D;      // of dq
static_assert(STEP * D == 2 * PART * PART && PARTS * 64 == STEP && WARPS == 12, "the kernel is cut for these");

// The block's named barriers.
constexpr int SUMMED = 1;         // both warpgroups have written their part of dq
constexpr int ADDED = SUMMED + 1; // it has been read
constexpr int DONE = ADDED + 1;   // both are done with keys and values
constexpr int WEIGHED = DONE + 1; // both have written ds

// dq_tiles is [pairs group tiles][TILE], each tile in accumulator order. done [B H tiles] counts
// the blocks that have added to each tile, and ticket the blocks that have started; both are
// initially 0. A pair is a row and a key/value head; pair0 is the first. scale is 1 / sqrt(D). lse2
// and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_backward_warpgroups(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
                              const __grid_constant__ TensorMap dout, const float *lse2, const float *delta, float *dq_tiles, int *done,
                              int *ticket, bf16 *dk, bf16 *dv, int tokens, int padded, int pair0, int key_heads, int group, int window,
                              float scale, const int *start, const double *frequencies, int64_t stride_dk, int64_t stride_dv) {
  bf16 *keys = memory, *values = keys + KEYS * D, *queries = values + KEYS * D, *douts = queries + STAGES * STEP * D;
  bf16 *weights = douts + STAGES * STEP * D; // ds of this step and the previous one, [KEYS STEP]
  float *dq_tile = (float *)(weights + 2 * KEYS * STEP);
  float *statistics = dq_tile + TILE; // lse2 and delta of each stage
  uint64_t *own_came = (uint64_t *)(statistics + 2 * STAGES * STEP), *came = own_came + 1, *left = came + STAGES;
  int *drawn = (int *)(left + STAGES);
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP;

  // Blocks take their keys in the order in which they start, the last keys of a head first, so that
  // a block never waits for one that has not started.
  if (threadIdx.x == 0) {
    *drawn = atomicAdd(ticket, 1);
    stage_init(own_came, 1);
    for (int i = 0; i < STAGES; i++) stage_init(came + i, 1), stage_init(left + i, PRODUCTS / WARP);
    stage_fence_init();
  }
  __syncthreads();
  int blocks = (tokens + KEYS - 1) / KEYS, block = blocks - 1 - *drawn % blocks, first = block * KEYS;
  int pair = pair0 + *drawn / blocks, key_head = pair % key_heads, text = pair / key_heads * tokens;
  int64_t head0 = (int64_t)pair * group; // the first query head, counted over all rows
  start += text;
  int from = first / STEP, steps = (query_end(start, first + KEYS - 1, tokens, window) - 1) / STEP - from + 1; // per head
  int tiles = padded / STEP, total = steps * group;

  if (warp >= PRODUCTS / WARP) {
    registers_release<24>();
    if (threadIdx.x == PRODUCTS) {
      stage_expect(own_came, 2 * KEYS * D * sizeof(bf16));
      copy_panels<KEYS>(keys, &k, key_head * D, text + first, own_came);
      copy_panels<KEYS>(values, &v, key_head * D, text + first, own_came);
      Ring<STAGES> ring = {0, 0};
      for (int i = 0, step = 0, head = 0; i < total; i++, ring.next()) {
        int i0 = (from + step) * STEP, channel = (key_head * group + head) * D;
        uint64_t *barrier = came + ring.stage;
        float *y = statistics + 2 * STEP * ring.stage;
        stage_await(left + ring.stage, ring.parity ^ 1);
        stage_expect(barrier, 2 * STEP * (D * sizeof(bf16) + sizeof(float)));
        copy_panels<STEP>(queries + ring.stage * STEP * D, &q, channel, text + i0, barrier);
        copy_floats(y, lse2 + (head0 + head) * padded + i0, STEP, barrier);
        copy_panels<STEP>(douts + ring.stage * STEP * D, &dout, channel, text + i0, barrier);
        copy_floats(y + STEP, delta + (head0 + head) * padded + i0, STEP, barrier);
        if (++step == steps) step = 0, head++;
      }
    } else if (warp == PRODUCTS / WARP + 1) {
      for (int i = 0, step = 0, head = 0; i < total; i++) {
        int tile = from + step, before = tile * STEP / KEYS - block; // blocks that add to the tile earlier than this one does
        int *count = done + (head0 + head) * tiles + tile;
        float *to = dq_tiles + ((head0 - (int64_t)pair0 * group + head) * tiles + tile) * TILE;
        if (lane == 0 && before > 0) {
          while (load_acquire(count) < before) {}
          fence_async_proxy_global();
        }
        __syncwarp();
        barrier_wait(SUMMED, PRODUCTS + WARP);
        if (lane == 0) {
          if (before > 0) {
            bulk_add(to, dq_tile, TILE * 4);
          } else {
            bulk_store(to, dq_tile, TILE * 4);
          }
          bulk_commit();
          bulk_wait_read();
        }
        __syncwarp();
        if (i + 1 < total) barrier_arrive(ADDED, PRODUCTS + WARP);
        if (lane == 0) {
          bulk_wait();
          fence_async_proxy_global();
          store_release(count, before + 1);
        }
        if (++step == steps) step = 0, head++;
      }
    }
    return;
  }

  registers_demand<240>();
  int own = first + warp * 16, second = warp / 4;
  dk += text * stride_dk + key_head * D, dv += text * stride_dv + key_head * D;
  stage_await(own_came, 0);

  const Kept<KEYS> key(keys + second * 64 * PANEL), value(values + second * 64 * PANEL);
  float dk_sum[D / 8][4], dv_sum[D / 8][4];
  clear<D / 8>(dk_sum), clear<D / 8>(dv_sum);
  // weigh turns the logits of PART queries, from at0 on, into weights.
  auto weigh = [&](float p[SCORES][4], uint32_t p_left[PART / 16][4], int at0, const float *lse2_i) {
    settle<SCORES>(p);
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) p[j][e] = fast_exp2(p[j][e] * (scale * LOG2E) - lse2_i[8 * j + lane % 4 * 2 + e % 2]);
    }
    if (at0 < own + 15 || first_key(start, at0 + PART - 1, tokens, window) > own) {
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int key = own + lane / 4 + e / 2 * 8, at = at0 + 8 * j + lane % 4 * 2 + e % 2;
          if (key > at || key < first_key(start, at, tokens, window)) p[j][e] = 0.f;
        }
      }
    }
    round_weights<PART>(p_left, p);
    settle<PART / 16>(p_left);
  };
  // weigh_gradient computes ds from do v and these weights.
  auto weigh_gradient = [&](const float p[SCORES][4], float ds[SCORES][4], uint32_t ds_left[PART / 16][4], const float *delta_i) {
    settle<SCORES>(ds);
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) ds[j][e] = p[j][e] * (ds[j][e] - delta_i[8 * j + lane % 4 * 2 + e % 2]);
    }
    round_weights<PART>(ds_left, ds);
    settle<PART / 16>(ds_left);
  };
  auto multiply_dq = [&](float dq[SCORES][4], const bf16 *weight) {
    wgmma_fence();
    multiply_columns<KEYS>(dq, weight + (PARTS == 1 ? 0 : second * KEYS * PART), keys + (PARTS == 1 ? second * KEYS * PANEL : 0));
    wgmma_commit();
  };
  // put_dq writes this warpgroup's part of a tile, for the warp that adds it.
  auto put_dq = [&](float dq[SCORES][4], bool begins) {
    settle<SCORES>(dq);
    if (!begins) barrier_wait(ADDED, PRODUCTS + WARP);
#pragma unroll
    for (int j = 0; j < SCORES; j++) store4(dq_tile + (j * PRODUCTS + threadIdx.x) * 4, dq[j]);
    fence_async_proxy();
    barrier_arrive(SUMMED, PRODUCTS + WARP);
  };
  auto leave = [&](int stage) {
    if (lane == 0) stage_arrive(left + stage);
  };

  Ring<STAGES> ring = {0, 0};
  int i0 = from * STEP, end = i0 + steps * STEP, half = 0, more = total;
#pragma unroll 1
  do {
    const bf16 *query = queries + ring.stage * STEP * D, *douti = douts + ring.stage * STEP * D;
    const float *lse2_i = statistics + 2 * STEP * ring.stage, *delta_i = lse2_i + STEP;
    float p[PARTS][SCORES][4], ds[SCORES][4], dq[SCORES][4];
    uint32_t p_left[PARTS][PART / 16][4], ds_left[PARTS][PART / 16][4];
    bf16 *weight = weights + half * KEYS * STEP;
    stage_await(came + ring.stage, ring.parity);
    wgmma_fence();
    key.template multiply<PART, STEP>(p[0], query);
    wgmma_commit();
    value.template multiply<PART, STEP>(ds, douti);
    wgmma_commit();
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
      bool last = n == PARTS - 1;
      if (n == 0) wgmma_wait<1>();
      if (n > 0) wgmma_wait<3>(); // dv, dk and the next ds are under way
      weigh(p[n], p_left[n], i0 + n * PART, lse2_i + n * PART);
      wgmma_fence();
      if (!last) key.template multiply<PART, STEP>(p[PARTS - 1], query + PART * PANEL);
      if (!last) wgmma_commit();
      multiply_weights<PART, STEP>(dv_sum, p_left[n], douti + n * PART * PANEL);
      wgmma_commit();
      if (!last) wgmma_wait<2>();
      if (last) wgmma_wait<1>();
      weigh_gradient(p[n], ds, ds_left[n], delta_i + n * PART);
      wgmma_fence();
      multiply_weights<PART, STEP>(dk_sum, ds_left[n], query + n * PART * PANEL);
      wgmma_commit();
      if (!last) value.template multiply<PART, STEP>(ds, douti + PART * PANEL);
      if (!last) wgmma_commit();
      store_left<PART>(weight + n * KEYS * PART, warp * 16, ds_left[n]);
    }
    fence_async_proxy();
    barrier_wait(WEIGHED, PRODUCTS); // and both are done with the ds of the step before last
    multiply_dq(dq, weight);
    wgmma_wait<0>();
    settle<D / 8>(dk_sum), settle<D / 8>(dv_sum);
    leave(ring.stage);
    put_dq(dq, more == total);
    ring.next();
    i0 += STEP;
    if (i0 == end) i0 = from * STEP;
    half ^= 1;
  } while (--more > 0);

  barrier_wait(DONE, PRODUCTS);
#ifdef ROTARY
  turn_back(dk_sum, frequencies, own);
#endif
  float scales[2] = {scale, scale}, ones[2] = {1.f, 1.f};
  put_rows<D>(dk_sum, scales, keys, warp * 16, 0, dk, stride_dk, own, tokens);
  put_rows<D>(dv_sum, ones, values, warp * 16, 0, dv, stride_dv, own, tokens);
}

// Converts dq to bfloat16, one tile per block, starting at query head head0 (counted over all
// rows).
extern "C" __global__ void __launch_bounds__(2 * STEP)
attention_dq_round(const float *dq_tiles, bf16 *dq, int tokens, int heads, int head0, float scale, const double *frequencies,
                   int64_t stride_dq) {
  __shared__ __align__(16) bf16 tile[STEP * D];
  int row = threadIdx.x / WARP * 16, first = blockIdx.x * STEP + row, head = head0 + blockIdx.y;
  dq += (int64_t)(head / heads) * tokens * stride_dq + head % heads * D;
  dq_tiles += ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * TILE;
  float sum[D / 8][4], scales[2] = {scale, scale};
#pragma unroll
  for (int j = 0; j < D / 8; j++) load4(dq_tiles + (j % SCORES * PRODUCTS + j / SCORES * 128 + threadIdx.x) * 4, sum[j]);
#ifdef ROTARY
  turn_back(sum, frequencies, first);
#endif
  put_rows<D>(sum, scales, tile, row, 0, dq, stride_dq, first, tokens);
}
