// Within a chunk: for the halves of 1 << l tokens, factors[l][t] is the key of a token of a first
// half, decayed to the half's end, or the query of a token of a second half, decayed from its
// start. Tokens s < t interact at the level of the highest bit in which they differ. The last two
// levels are the queries and keys themselves, for s = t.
constexpr int SLICE = WARP; // channels at once
constexpr int PITCH = SLICE + 4;

// Every fourth row is followed by a gap, so that threads that read 4 rows each hit different banks.
__device__ __forceinline__ int factor_at(int level, int t) { return level * (CHUNK * PITCH + CHUNK) + t * PITCH + t / 4 * 4; }

__device__ __forceinline__ void add_pair(float &sum, const float *x, const float *y) {
#pragma unroll
  for (int i = 0; i < 4; i++) sum += x[i] * y[i];
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_within(const Q_T *q, const K_T *k, const float *g, float *scores, float *reads, float *writes, float *total,
                         int64_t stride_q, int64_t stride_k, int64_t stride_g, const int *start, int sequence, int tokens, int heads, int keys,
                         float scale) {
  extern __shared__ float factors[];
  Span s = span_of_block(sequence, tokens, heads);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  scores += s.index * CHUNK * CHUNK, reads += s.index * CHUNK * keys, writes += s.index * CHUNK * keys, total += s.index * keys;

  // The first 240 threads each compute a tile of 4x4 scores below the diagonal, for half of the
  // channels; the others compute a tile on the diagonal.
  constexpr int BELOW = CHUNK / 4 * (CHUNK / 4 - 1) / 2;
  static_assert(2 * BELOW + CHUNK / 4 == 256, "a thread for each tile");
  int tile = threadIdx.x % BELOW, part = threadIdx.x / BELOW, to = 1, from;
  bool diagonal = part == 2;
  if (diagonal) {
    to = from = tile;
  } else {
    while (tile >= to) tile -= to++;
    from = tile;
  }
  float sum[4][4] = {};

  for (int first = 0; first < keys; first += SLICE) {
    int i = first + lane;
    Channel<Q_T> query(q, stride_q, s, keys, i);
    Channel<K_T> key(k, stride_k, s, keys, i);
    Gates gate(g, stride_g, start, s, keys, i);
    __syncthreads();
    if (warp < LEVELS) {
      int half = 1 << warp;
      float log = 0.f;
#pragma unroll 8
      for (int u = 0; u < CHUNK; u++) {
        int at = u % (2 * half);
        bool later = at >= half;
        int t = later ? u : u - at + half - 1 - at; // the first half backwards
        if (at == 0 || at == half) log = 0.f;
        float x = later ? query[t] * scale : key[t], by = gate[t];
        if (later) log += by;
        factors[factor_at(warp, t) + lane] = x * decay(log);
        if (!later) log += by;
      }
    } else if (warp == LEVELS) {
      float log = 0.f;
#pragma unroll 8
      for (int t = 0; t < CHUNK; t++) {
        float x = query[t] * scale;
        log += gate[t];
        factors[factor_at(warp, t) + lane] = x;
        if (i < keys) reads[(int64_t)t * keys + i] = x * decay(log);
      }
      if (i < keys) total[i] = decay(log);
    } else {
      float log = 0.f;
#pragma unroll 8
      for (int t = CHUNK - 1; t >= 0; t--) {
        float x = key[t];
        factors[factor_at(warp, t) + lane] = x;
        if (i < keys) writes[(int64_t)t * keys + i] = x * decay(log);
        log += gate[t];
      }
    }
    __syncthreads();
    if (!diagonal) {
      const float *f = factors + factor_at(31 - __clz(to ^ from) + 2, 0) + part * (SLICE / 2);
      const float *x = f + to * 4 * PITCH + to * 4, *y = f + from * 4 * PITCH + from * 4;
#pragma unroll
      for (int c = 0; c < SLICE / 2; c += 4) {
        float a[4][4], b[4][4];
#pragma unroll
        for (int r = 0; r < 4; r++) load4(x + r * PITCH + c, a[r]), load4(y + r * PITCH + c, b[r]);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
          for (int l = 0; l < 4; l++) add_pair(sum[r][l], a[r], b[l]);
      }
    } else {
#pragma unroll
      for (int c = 0; c < SLICE; c += 4) {
        float a[4][4], b[4][4];
        auto rows = [&](int level, float x[4][4]) {
#pragma unroll
          for (int r = 0; r < 4; r++) load4(factors + factor_at(level, 4 * to + r) + c, x[r]);
        };
        rows(LEVELS, a), rows(LEVELS + 1, b);
#pragma unroll
        for (int r = 0; r < 4; r++) add_pair(sum[r][r], a[r], b[r]);
        rows(0, a), rows(1, b);
        add_pair(sum[1][0], a[1], a[0]), add_pair(sum[3][2], a[3], a[2]);
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
          for (int l = 0; l < 2; l++) add_pair(sum[2 + r][l], b[2 + r], b[l]);
      }
    }
  }

  __syncthreads();
  float *other = factors + (to * (CHUNK / 4) + from) * 16;
  if (part == 1) {
#pragma unroll
    for (int e = 0; e < 16; e++) other[e] = sum[e / 4][e % 4];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 4; r++)
#pragma unroll
    for (int l = 0; l < 4; l++) {
      if (part == 1) scores[(4 * from + r) * CHUNK + 4 * to + l] = 0.f; // above the diagonal
      if (part != 1) scores[(4 * to + r) * CHUNK + 4 * from + l] = sum[r][l] + (part == 0 ? other[4 * r + l] : 0.f);
    }
}
