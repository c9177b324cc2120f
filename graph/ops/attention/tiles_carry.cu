// Computes what carry.cu does, on tensor cores, with bf16 states. The queries of all heads that
// share a key head are rows of one tile: row r is head r % GROUP of token r / GROUP.

constexpr int PART = D + 2; // floats in a part's result, as in carry.cu

// Keys locates a sequence's keys and values by position: positions below start are in the ring.
struct Keys {
  const bf16 *k, *v, *key, *value;
  int64_t stride_k, stride_v, stride_key, stride_value;
  int start, end, slots;

  // load starts copying positions [first, first + STEP) to two tiles: those in the ring (if Old)
  // and the new ones (if New), with zeros from `end` on.
  template <bool Old, bool New> __device__ __forceinline__ void load(bf16 *keys, bf16 *values, int first) const {
    constexpr int PASS = THREADS / CHUNKS;
    static_assert(STEP % PASS == 0, "a step is not a multiple of the block");
    int row = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS, slot = (first + row) % slots;
#pragma unroll
    for (int i = 0; i < STEP; i += PASS, slot += PASS) {
      while (slot >= slots) slot -= slots;
      int j = first + row + i;
      bool old = j < start;
      if (old ? !Old : !New) continue;
      const bf16 *from = old ? key + slot * stride_key : k + (j - start) * stride_k;
      copy_async16(chunk(keys, row + i, c), from + c * 8, j < end);
      from = old ? value + slot * stride_value : v + (j - start) * stride_v;
      copy_async16(chunk(values, row + i, c), from + c * 8, j < end);
    }
  }
};

// A block handles QUERIES rows of one key head and one of `splits` parts of the keys that they see.
// A part's result goes to `parts`, for attention_carry_join; with a single part it is the final
// result. With KEEP the sequence's one token is also written to the ring, and with ROTARY q and k
// are rotated first. scale is log2(e) / sqrt(D). Data in the ring is fetched before the inputs are
// ready, since no preceding kernel writes it.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_carry_tiles(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *key, bf16 *value, const int *pos, bf16 *o, float *parts,
                      uint64_t log2_base, int tokens, int slots, int heads, int splits, int windowed, float scale, int64_t stride_q,
                      int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value, int64_t stride_o) {
  let_next_begin();
  bf16 *queries = memory, *keys = queries + QUERIES * D, *values = keys + 2 * STEP * D;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, h = blockIdx.y / splits, part = blockIdx.y % splits;
  int rows = tokens * GROUP, first = blockIdx.x * QUERIES, own = first + warp * ROWS, start = pos[blockIdx.z];
  int64_t text = (int64_t)blockIdx.z * tokens, ring = (int64_t)blockIdx.z * slots;
  q += text * stride_q + h * GROUP * D, o += text * stride_o + h * GROUP * D;
  int end = start + min((first + QUERIES - 1) / GROUP, tokens - 1) + 1;
  Keys text_keys = {k + text * stride_k + h * D, v + text * stride_v + h * D, key + ring * stride_key + h * D, value + ring * stride_value + h * D,
                    stride_k, stride_v, stride_key, stride_value, start, end, slots};

  // This part's keys: whole steps, counted from the first key that any of the block's queries sees.
  int from = max(0, start + first / GROUP - slots + 1), steps = (end - from + STEP - 1) / STEP, each = (steps + splits - 1) / splits;
  int step = min(part * each, steps), last = min(step + each, steps);
  if (step == last) {
    // No keys. Only the maximum logit of such parts is read; they come after all others.
    wait_for_inputs();
    for (int r = first + threadIdx.x; r < min(first + QUERIES, rows); r += THREADS)
      parts[(((text + r / GROUP) * heads + h * GROUP + r % GROUP) * splits + part) * PART] = -INF;
    return;
  }

  text_keys.load<true, false>(keys, values, from + step * STEP);
#ifdef ROTARY
  __shared__ Turning turning;
  __shared__ __align__(16) bf16 new_key[D];
  turning.find(start, __longlong_as_double(log2_base));
  __syncthreads();
#endif
  wait_for_inputs();
  text_keys.load<false, true>(keys, values, from + step * STEP);
#ifdef ROTARY
  for (int i = threadIdx.x; i < QUERIES * (CHUNKS / 2); i += THREADS) {
    int r = i / (CHUNKS / 2), c = i % (CHUNKS / 2) * 8;
    if (first + r < rows) turning.turn(q + (first + r) * D, c, chunk(queries, r, c / 8), chunk(queries, r, CHUNKS / 2 + c / 8));
  }
  for (int c = threadIdx.x; c < CHUNKS / 2; c += THREADS) turning.turn(k + text * stride_k + h * D, c * 8, new_key + c * 8, new_key + D / 2 + c * 8);
#else
#pragma unroll
  for (int i = 0; i < QUERIES; i += THREADS / CHUNKS) {
    int r = i + threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
    if (r < QUERIES)
      copy_async16(chunk(queries, r, c), q + (first + r) / GROUP * stride_q + (first + r) % GROUP * D + c * 8, first + r < rows);
  }
#endif
  copy_async_commit();
#ifdef KEEP
  // The one new key replaces, in the ring, the key that its query no longer sees.
  if (part == 0) {
    __syncthreads();
    for (int c = threadIdx.x; c < CHUNKS; c += THREADS) {
      int64_t to = ring + start % slots;
#ifdef ROTARY
      *(uint4 *)(key + to * stride_key + h * D + c * 8) = *(const uint4 *)(new_key + c * 8);
#else
      *(uint4 *)(key + to * stride_key + h * D + c * 8) = *(const uint4 *)(k + text * stride_k + h * D + c * 8);
#endif
      *(uint4 *)(value + to * stride_value + h * D + c * 8) = *(const uint4 *)(v + text * stride_v + h * D + c * 8);
    }
  }
#endif

  Queries mine;
  int oldest = start + own / GROUP, newest = start + (own + ROWS - 1) / GROUP; // positions of the warp's queries

  for (int stage = 0; step < last; step++, stage ^= 1) {
    // This step's keys have arrived, and all warps are done with the previous step, whose buffer
    // the next keys will use.
    copy_async_wait<0>();
    __syncthreads();
    int j0 = from + step * STEP;
    if (step + 1 < last) {
      text_keys.load<true, true>(keys + (stage ^ 1) * STEP * D, values + (stage ^ 1) * STEP * D, j0 + STEP);
      copy_async_commit();
    }
    bf16 *key_tile = keys + stage * STEP * D, *value_tile = values + stage * STEP * D;
#ifdef ROTARY
    if (j0 + STEP > start) {
      for (int c = threadIdx.x; c < CHUNKS; c += THREADS) *(uint4 *)chunk(key_tile, start - j0, c) = *(const uint4 *)(new_key + c * 8);
      __syncthreads();
    }
#endif
    if (own >= rows || j0 > newest || j0 + STEP - 1 <= oldest - slots) continue;

    bool edge = j0 + STEP - 1 > oldest || j0 <= newest - slots;
    mine.take(queries, warp * ROWS, key_tile, value_tile, scale, edge, [&](int i, int j) {
      int query = start + (own + i) / GROUP;
      return j0 + j > query || j0 + j <= query - slots;
    });
  }

  bool fits = windowed || start + tokens <= slots;
#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = mine.total(r, half);
      int row = own + 16 * r + lane / 4 + 8 * half, token = row / GROUP, head = row % GROUP;
      if (row >= rows) continue;
      if (splits > 1) {
        float *to = parts + (((text + token) * heads + h * GROUP + head) * splits + part) * PART;
        if (lane % 4 == 0) to[0] = mine.weights[r].greatest[half] * (scale / LOG2E), to[1] = total;
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
          const float *x = mine.sum[r][c] + 2 * half;
          *(float2 *)(to + 2 + 8 * c + lane % 4 * 2) = make_float2(x[0], x[1]);
        }
      } else {
        float inverse = fits ? 1.f / total : INF - INF;
        bf16 *to = o + token * stride_o + head * D + lane % 4 * 2;
#pragma unroll
        for (int c = 0; c < D / 8; c++) {
          const float *x = mine.sum[r][c] + 2 * half;
          *(uint32_t *)(to + 8 * c) = pack_bf16(x[0] * inverse, x[1] * inverse);
        }
      }
    }
  }
}
