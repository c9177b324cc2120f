#ifdef DO_T
// A thread of linear_recurrence_inputs handles OWN tokens of a channel, and the 4 warps of a block
// a chunk of 32 channels.
constexpr int OWN = CHUNK / 4;

struct Own {
  float q[OWN], k[OWN], g[OWN]; // q is divided by sqrt(keys)
  float dq[OWN], dk[OWN], dg[OWN];

  // from_start is the decay of each token since before the first one, where the accumulated log
  // decay is log.
  __device__ __forceinline__ void from_start(float log, float e[OWN]) const {
#pragma unroll
    for (int t = 0; t < OWN; t++) log += g[t], e[t] = decay(log);
  }
  __device__ __forceinline__ void to_end(float log, float e[OWN]) const {
#pragma unroll
    for (int t = OWN - 1; t >= 0; t--) e[t] = decay(log), log += g[t];
  }

  // later takes the gradients d of the decayed queries of tokens [lo, hi). g at t decays what
  // tokens t and later read; sum is the contribution of the tokens from hi on.
  __device__ __forceinline__ void later(const float *d, int lo, int hi, float sum) {
#pragma unroll
    for (int t = hi - 1; t >= lo; t--) sum += d[t] * q[t], dq[t] += d[t], dg[t] += sum;
  }
  // earlier takes those of decayed keys. g at t decays what tokens before t wrote.
  __device__ __forceinline__ void earlier(const float *d, int lo, int hi, float sum) {
#pragma unroll
    for (int t = lo; t < hi; t++) dg[t] += sum, dk[t] += d[t], sum += d[t] * k[t];
  }

  // halves handles the interaction between neighboring halves, and then recursively that within the
  // halves. dscores starts at this thread's rows and columns.
  template <int HALF> __device__ __forceinline__ void halves(const float *dscores) {
    float e[OWN], f[OWN];
#pragma unroll
    for (int lo = 0; lo < OWN; lo += 2 * HALF) {
      float log = 0.f;
#pragma unroll
      for (int t = lo + HALF - 1; t >= lo; t--) e[t] = decay(log), f[t] = k[t] * e[t], log += g[t];
      log = 0.f;
#pragma unroll
      for (int t = lo + HALF; t < lo + 2 * HALF; t++) log += g[t], e[t] = decay(log), f[t] = q[t] * e[t];
    }
#pragma unroll
    for (int lo = 0; lo < OWN; lo += 2 * HALF) {
      float d[OWN] = {};
#pragma unroll
      for (int t = lo; t < lo + HALF; t++)
#pragma unroll
        for (int r = lo + HALF; r < lo + 2 * HALF; r++) {
          float x = dscores[t * CHUNK + r];
          d[t] += x * f[r], d[r] += x * f[t];
        }
#pragma unroll
      for (int t = lo; t < lo + 2 * HALF; t++) d[t] *= e[t];
      earlier(d, lo, lo + HALF, 0.f);
      later(d, lo + HALF, lo + 2 * HALF, 0.f);
    }
    if constexpr (HALF > 1) halves<HALF / 2>(dscores);
  }
};

// products is the sum of a times b.
__device__ __forceinline__ float products(const float a[OWN], const float b[OWN]) {
  float sum = 0.f;
#pragma unroll
  for (int t = 0; t < OWN; t++) sum += a[t] * b[t];
  return sum;
}

// linear_recurrence_inputs propagates the gradients of scores, reads, writes and total to q, k and
// g.
extern "C" __global__ void __launch_bounds__(128)
linear_recurrence_inputs(const Q_T *q, const K_T *k, const float *g, const float *dscores, const float *dreads, const float *dwrites,
                         const float *through, DQ_T *dq, DK_T *dk, DG_T *dg, int64_t stride_q, int64_t stride_k, int64_t stride_g,
                         int64_t stride_dq, int64_t stride_dk, int64_t stride_dg, const int *start, int sequence, int tokens, int heads, int keys,
                         float scale) {
  __shared__ __align__(16) float scores[CHUNK * CHUNK];
  __shared__ float factors[CHUNK][WARP];
  __shared__ float logs[4][WARP], sums[3][4][WARP]; // of each warp's tokens
  Span s = span_of_block(sequence, tokens, heads);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, i = blockIdx.y * WARP + lane, first = warp * OWN;
  dscores += s.index * CHUNK * CHUNK, dreads += s.index * CHUNK * keys, dwrites += s.index * CHUNK * keys, through += s.index * keys;
  for (int e = threadIdx.x; e < CHUNK * CHUNK; e += 128) scores[e] = dscores[e];

  Channel<Q_T> query(q, stride_q, s, keys, i);
  Channel<K_T> key(k, stride_k, s, keys, i);
  Gates gate(g, stride_g, start, s, keys, i);
  Own own;
  float log = 0.f, e[OWN], d[OWN];
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    own.q[t] = query[first + t] * scale, own.k[t] = key[first + t], own.g[t] = gate[first + t];
    own.dq[t] = own.dk[t] = own.dg[t] = 0.f;
    log += own.g[t];
  }
  logs[warp][lane] = log;
  __syncthreads();

  // The tokens' relation to the states before and after the chunk.
  float written[OWN], since = 0.f, until = 0.f;
  for (int w = 0; w < 4; w++) {
    if (w < warp) since += logs[w][lane];
    if (w > warp) until += logs[w][lane];
  }
  own.from_start(since, e);
#pragma unroll
  for (int t = 0; t < OWN; t++) d[t] = i < keys ? e[t] * dreads[(int64_t)(first + t) * keys + i] : 0.f;
  own.to_end(until, e);
#pragma unroll
  for (int t = 0; t < OWN; t++) written[t] = i < keys ? e[t] * dwrites[(int64_t)(first + t) * keys + i] : 0.f;
  sums[0][warp][lane] = products(d, own.q), sums[1][warp][lane] = products(written, own.k);
  __syncthreads();
  float after = 0.f, before = 0.f;
#ifndef LOG_DECAYS
  before = i < keys ? through[i] : 0.f;
#endif
  for (int w = 3; w > warp; w--) after += sums[0][w][lane];
  for (int w = 0; w < warp; w++) before += sums[1][w][lane];
  own.later(d, 0, OWN, after);
  own.earlier(written, 0, OWN, before);

  // The halves of the chunk, of 2 warps each, and then the warps' tokens as halves.
#pragma unroll
  for (int half = 2; half > 0; half /= 2) {
    bool later = warp & half;
    float log = 0.f;
    if (half == 2 && warp == 3) log = logs[2][lane];
    if (half == 2 && warp == 0) log = logs[1][lane];
    if (later) own.from_start(log, e);
    else own.to_end(log, e);
    __syncthreads();
#pragma unroll
    for (int t = 0; t < OWN; t++) factors[first + t][lane] = e[t] * (later ? own.q[t] : own.k[t]), d[t] = 0.f;
    __syncthreads();
    int partner = (warp ^ half) / half * half * OWN;
#pragma unroll 4
    for (int r = partner; r < partner + half * OWN; r++) {
      float f = factors[r][lane];
#pragma unroll
      for (int t = 0; t < OWN; t += 4) {
        float x[4];
        load4(scores + r * CHUNK + first + t, x);
#pragma unroll
        for (int c = 0; c < 4; c++) d[t + c] += x[c] * f;
      }
    }
#pragma unroll
    for (int t = 0; t < OWN; t++) d[t] *= e[t];
    float sum = 0.f;
    if (half == 2) {
      sums[2][warp][lane] = later ? products(d, own.q) : products(d, own.k);
      __syncthreads();
      if (warp == 2) sum = sums[2][3][lane];
      if (warp == 1) sum = sums[2][0][lane];
    }
    if (later) own.later(d, 0, OWN, sum);
    else own.earlier(d, 0, OWN, sum);
  }
  own.halves<OWN / 2>(scores + first * CHUNK + first);

  if (i >= keys) return;
  int64_t column = (int64_t)s.head * keys + i;
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    if (first + t >= s.n) continue;
    float x = scores[(first + t) * CHUNK + first + t];
    int64_t row = s.row + first + t;
    store(dq + row * stride_dq + column, (own.dq[t] + x * own.k[t]) * scale);
    store(dk + row * stride_dk + column, own.dk[t] + x * own.q[t]);
#ifndef LOG_DECAYS
    store(dg + row * stride_dg + column, own.dg[t]);
#endif
  }
}
#endif
