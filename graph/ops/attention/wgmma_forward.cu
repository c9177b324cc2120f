constexpr int GROUPS = WARPS / 4 - 1; // warpgroups that multiply; the first warpgroup copies
constexpr int QUERIES = 64 * GROUPS;  // per tile
constexpr int SCORES = STEP / 8;      // accumulators for STEP keys
constexpr int POOL = 65536 / THREADS / 8 * 8 * (GROUPS + 1); // registers per thread, summed over the warpgroups
static_assert(POOL - GROUPS * REGISTERS >= 24, "too few registers are left to copy with");
constexpr int TURN = 1;               // the named barrier at which a warpgroup waits for its turn; one for each

// Work is a tile of QUERIES queries of a head. Blocks draw tiles one after another, head by head,
// and within a head those with the most keys first.
//
// With CARRIED the sequence continues: query i is key before + i. With a window, k and v hold the
// `window` tokens before the first query and then the call's own; without one, the sequence from its
// beginning, with room for `window` tokens. start [B] is then the position of the first query.
struct Work {
  int first, head, text; // the first query, and the row's first token
  int keys, before;      // the row's first key, and the number of its keys before the first query's
  int step, last;        // the steps of keys that the queries see
  bool fits;             // there is room for all keys

  __device__ __forceinline__ Work(int i, int heads, const int *starts, int tokens, int window, int windowed) : tokens(tokens), window(window) {
    int tiles = (tokens + QUERIES - 1) / QUERIES, row = i / tiles / heads;
    first = (tiles - 1 - i % tiles) * QUERIES, head = i / tiles % heads, text = row * tokens;
#ifdef CARRIED
    int position = starts[row];
    before = windowed ? window : position, oldest = windowed ? window - position : 0;
    keys = row * (windowed ? window + tokens : window), fits = windowed || position + tokens <= window;
#else
    start = starts + text, before = 0, keys = text, fits = true;
#endif
    step = first_seen(first) / STEP, last = (min(first + QUERIES, tokens) - 1 + before) / STEP;
  }
  // first_seen is the first key that a query sees.
  __device__ __forceinline__ int first_seen(int query) const {
#ifdef CARRIED
    return max(oldest, query + before - window + 1);
#else
    return first_key(start, query, tokens, window);
#endif
  }

private:
  const int *start; // of the row's documents
  int oldest, tokens, window;
};

// store_rows writes the accumulators of a warp's 16 rows to x, starting at row `first`. Lanes that
// each hold 2 channels of four octets of a row exchange them so that each gets one octet. scale
// applies to rows lane/4 and lane/4 + 8.
__device__ __forceinline__ void store_rows(const float sum[D / 8][4], const float scale[2], bf16 *x, int64_t stride, int first, int tokens) {
  int lane = threadIdx.x % WARP, part = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = first + lane / 4 + 8 * half;
#pragma unroll
    for (int j = 0; j < D / 8; j += 4) {
      uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = pack_bf16(sum[j + i][2 * half] * scale[half], sum[j + i][2 * half + 1] * scale[half]);
      exchange(w[0], w[1], part & 1, 1), exchange(w[2], w[3], part & 1, 1);
      exchange(w[0], w[2], part & 2, 2), exchange(w[1], w[3], part & 2, 2);
      if (row < tokens) *(uint4 *)(x + row * stride + (j + part) * 8) = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

// Sets the ticket from which blocks draw their later tiles.
extern "C" __global__ void attention_begin(int *ticket, int blocks) { *ticket = blocks; }

// A block draws tiles of QUERIES queries and loops over the keys that they see, STEP at a time;
// each warpgroup handles 64 of the queries. One thread draws and copies, ahead of the others. The
// next logits are multiplied while the weights of the current ones are computed, so that the tensor
// cores work during the softmax. scale is log2(e) / sqrt(D).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_warpgroups(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v, bf16 *o,
                     float *lse, int *ticket, int tiles, int tokens, int heads, int group, int window, float scale, const int *start,
                     int windowed, int64_t stride_o, int64_t stride_lse) {
  bf16 *queries = memory, *keys = queries + QUERIES * D, *values = keys + STAGES * STEP * D;
  uint64_t *query_came = (uint64_t *)(values + STAGES * STEP * D), *query_left = query_came + 1, *key_came = query_left + 1,
           *key_left = key_came + STAGES, *value_came = key_left + STAGES, *value_left = value_came + STAGES;
  volatile int *drawn = (int *)(value_left + STAGES);
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP;
  if (threadIdx.x == 0) {
    stage_init(query_came, 1), stage_init(query_left, 4 * GROUPS);
    for (int i = 0; i < STAGES; i++) {
      stage_init(key_came + i, 1), stage_init(key_left + i, 4 * GROUPS);
      stage_init(value_came + i, 1), stage_init(value_left + i, 4 * GROUPS);
    }
    stage_fence_init();
  }
  __syncthreads();
  Ring<1> query = {0, 0};
  Ring<STAGES> key = {0, 0}, value = {0, 0};

  if (warp < 4) {
    registers_release<POOL - GROUPS * REGISTERS>();
    if (threadIdx.x != 0) return;
    for (int i = blockIdx.x, next = 0;; i = next, query.next()) {
      stage_await(query_left, query.parity ^ 1);
      *drawn = i;
      if (i >= tiles) break;
      next = atomicAdd(ticket, 1);
      Work work(i, heads, start, tokens, window, windowed);
      auto copy = [&](Ring<STAGES> &ring, bf16 *tiles, const TensorMap *x, int step, uint64_t *came, uint64_t *left) {
        stage_await(left + ring.stage, ring.parity ^ 1);
        stage_expect(came + ring.stage, STEP * D * sizeof(bf16));
        copy_panels<STEP>(tiles + ring.stage * STEP * D, x, work.head / group * D, work.keys + step * STEP, came + ring.stage);
        ring.next();
      };
      stage_expect(query_came, QUERIES * D * sizeof(bf16));
      copy_panels<QUERIES>(queries, &q, work.head * D, work.text + work.first, query_came);
      copy(key, keys, &k, work.step, key_came, key_left);
      for (int step = work.step; step <= work.last; step++) {
        if (step < work.last) copy(key, keys, &k, step + 1, key_came, key_left);
        copy(value, values, &v, step, value_came, value_left);
      }
    }
    stage_arrive(query_came);
    return;
  }

  registers_demand<REGISTERS>();
  int mine = warp / 4 - 1, turn = TURN + mine, next_turn = TURN + (mine + 1) % GROUPS;
  const bf16 *query_tile = queries + mine * 64 * PANEL;
  auto leave = [&](uint64_t *barrier) {
    if (lane == 0) stage_arrive(barrier);
  };
  if (mine == GROUPS - 1) barrier_arrive(next_turn, 256);
  for (;; query.next()) {
    stage_await(query_came, query.parity);
    if (*drawn >= tiles) break;
    Work work(*drawn, heads, start, tokens, window, windowed);
    int own = work.first + (warp - 4) * 16;                           // the warp's first query
    int all = work.first_seen(own + 15);      // from here on, each key is seen by all of the warp's queries from its position on
    float s[SCORES][4], sum[D / 8][4], shrink[2];
    uint32_t w[STEP / 16][4];
    Weights weights = {{-INF, -INF}, {0.f, 0.f}};
    auto multiply_scores = [&] {
      wgmma_fence();
      multiply_rows<QUERIES, STEP>(s, query_tile, keys + key.stage * STEP * D);
      wgmma_commit();
    };
    auto scores_done = [&] {
      settle<SCORES>(s);
      leave(key_left + key.stage);
      key.next();
    };
    auto multiply_values = [&] {
      stage_await(value_came + value.stage, value.parity);
      multiply_weights<STEP>(sum, w, values + value.stage * STEP * D);
      wgmma_commit();
    };
    auto values_done = [&] {
      wgmma_wait<0>();
      settle<D / 8>(sum), settle<STEP / 16>(w);
      leave(value_left + value.stage);
      value.next();
    };
    auto weigh = [&](int j0) {
      if (j0 + STEP - 1 > own + work.before || j0 < all) {
#pragma unroll
        for (int j = 0; j < SCORES; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            int query = own + lane / 4 + e / 2 * 8, at = j0 + 8 * j + lane % 4 * 2 + e % 2;
            if (at > query + work.before || at < work.first_seen(query)) s[j][e] = -INF;
          }
        }
      }
      weights.update<SCORES>(s, scale, shrink);
    };

    stage_await(key_came + key.stage, key.parity);
    multiply_scores();
    wgmma_wait<0>();
    scores_done();
    weigh(work.step * STEP);
    round_weights<STEP>(w, s);
    clear<D / 8>(sum);

    // The warpgroups take turns: while one multiplies, the others compute weights.
    for (int step = work.step; step < work.last; step++) {
      stage_await(key_came + key.stage, key.parity);
      barrier_wait(turn, 256);
      settle<D / 8>(sum), settle<STEP / 16>(w);
      multiply_scores();
      multiply_values();
      barrier_arrive(next_turn, 256);
      wgmma_wait<1>();
      scores_done();
      weigh((step + 1) * STEP);
      values_done();
#pragma unroll
      for (int c = 0; c < D / 8; c++) {
        sum[c][0] *= shrink[0], sum[c][1] *= shrink[0];
        sum[c][2] *= shrink[1], sum[c][3] *= shrink[1];
      }
      round_weights<STEP>(w, s);
    }
    leave(query_left);
    settle<D / 8>(sum), settle<STEP / 16>(w);
    wgmma_fence();
    multiply_values();
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = weights.sum[half];
      total += __shfl_xor_sync(FULL, total, 1);
      total += __shfl_xor_sync(FULL, total, 2);
      inverse[half] = work.fits ? 1.f / total : INF - INF;
#ifndef CARRIED
      int query = own + lane / 4 + 8 * half;
      if (lane % 4 == 0 && query < tokens)
        lse[(work.text + query) * stride_lse + work.head] = weights.greatest[half] * (scale / LOG2E) + logf(total);
#endif
    }
    values_done();
    store_rows(sum, inverse, o + work.text * stride_o + work.head * D, stride_o, own, tokens);
  }
  if (mine == 0) barrier_wait(turn, 256);
}
