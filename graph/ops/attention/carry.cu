// Attention of the tokens at positions pos, pos + 1, ... of each row's sequence, pos [B], to a ring
// of the last `slots` keys and values (the token at position p is in slot p % slots) and to
// themselves. A query's keys are cut into `splits` parts, so that decoding, which has few queries,
// keeps the GPU busy: each warp of the grid handles one part of one query of one head.

// PART is the number of floats in a part's result: its maximum logit, its sum of weights, and o.
constexpr int PART = D + 2;
#ifndef JOINERS
#define JOINERS 1 // for launches without attention_carry_join
#endif

extern "C" __global__ void __launch_bounds__(WARPS *WARP)
attention_carry_parts(const Q_T *q, const K_T *k, const V_T *v, const KEY_T *key, const VALUE_T *value, const int *pos, float *parts,
                      int rows, int tokens, int slots, int heads, int group, int splits, float scale, int64_t stride_q,
                      int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value) {
  begin_early();
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (i >= (int64_t)rows * tokens * heads * splits) return;
  int part = i % splits, h = i / splits % heads, t = i / splits / heads % tokens;
  int64_t row = i / splits / heads, text = row - t, ring = row / tokens * slots;

  // This part has positions [from, to); those below pos are in the ring.
  int start = pos[row / tokens], first = max(0, start + t - slots + 1);
  int size = (start + t + 1 - first + splits - 1) / splits;
  int from = first + min((int64_t)part * size, (int64_t)start + t + 1 - first), to = min(start + t + 1, from + size);

  Softmax s(scale);
  Head<const Q_T>(q, stride_q, row, h).load(0, s.q);
  Head<const KEY_T> keys(key, stride_key, ring, h / group);
  Head<const VALUE_T> values(value, stride_value, ring, h / group);
  int j = from;
  while (j < min(to, start)) { // at most two iterations: up to the ring's end, and from its start
    int slot = j % slots, n = min(min(to, start) - j, slots - slot);
    s.attend(keys, values, slot, n);
    j += n;
  }
  s.attend(Head<const K_T>(k, stride_k, text, h / group), Head<const V_T>(v, stride_v, text, h / group), j - start, to - j);

  float *out = parts + i * PART;
  if (threadIdx.x % WARP == 0) out[0] = s.greatest, out[1] = s.sum;
#pragma unroll
  for (int n = 0; n < SHARE; n++) {
    int c = n * WARP + threadIdx.x % WARP;
    if (c < D) out[2 + c] = s.o[n];
  }
}

// attention_carry_join combines a query's parts, in an order that depends only on their number. A
// block handles one query of one head, and each of its JOINERS warps some of the parts. A sequence
// longer than the cache, without a window, gives NaN, since a kernel can't report an error.
extern "C" __global__ void __launch_bounds__(JOINERS *WARP)
attention_carry_join(const float *parts, const int *pos, O_T *o, int tokens, int slots, int heads, int splits, int windowed,
                     int64_t stride_o) {
  constexpr int OWN = 4; // parts per warp whose loads overlap
  begin_early();
  int64_t i = blockIdx.x;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, used = 0;
  parts += i * splits * PART;

  // Every warp reads the maximum logits of all parts. All parts after the last one that has keys
  // are empty.
  float greatest = -INF;
  for (int p0 = 0; p0 < splits; p0 += WARP) {
    float most = p0 + lane < splits ? parts[(p0 + lane) * PART] : -INF;
    unsigned some = __ballot_sync(FULL, most > -INF);
    if (some) used = p0 + WARP - __clz(some);
    greatest = fmaxf(greatest, most);
  }
  greatest = warp_max(greatest);

  float sum = 0.f, x[SHARE] = {};
  for (int p0 = warp; p0 < used; p0 += JOINERS * OWN) {
    float most[OWN], part_sum[OWN], part[OWN][SHARE];
#pragma unroll
    for (int k = 0; k < OWN; k++) {
      const float *from = parts + (p0 + k * JOINERS) * PART;
      bool there = p0 + k * JOINERS < used;
      most[k] = there ? from[0] : -INF, part_sum[k] = there ? from[1] : 0.f;
#pragma unroll
      for (int n = 0; n < SHARE; n++) part[k][n] = there && n * WARP + lane < D ? from[2 + n * WARP + lane] : 0.f;
    }
#pragma unroll
    for (int k = 0; k < OWN; k++) {
      float weight = expf(most[k] - greatest); // 0 for a part without keys
      sum += weight * part_sum[k];
#pragma unroll
      for (int n = 0; n < SHARE; n++) x[n] += weight * part[k][n];
    }
  }
  if constexpr (JOINERS > 1) {
    __shared__ float sums[JOINERS][SHARE + 1][WARP];
    sums[warp][SHARE][lane] = sum;
#pragma unroll
    for (int n = 0; n < SHARE; n++) sums[warp][n][lane] = x[n];
    __syncthreads();
    if (warp > 0) return;
#pragma unroll
    for (int w = 1; w < JOINERS; w++) {
      sum += sums[w][SHARE][lane];
#pragma unroll
      for (int n = 0; n < SHARE; n++) x[n] += sums[w][n][lane];
    }
  }
  bool fits = windowed || pos[i / heads / tokens] + tokens <= slots;
  Head<O_T>(o, stride_o, i / heads, i % heads).put(0, x, fits ? 1.f / sum : INF - INF);
}

// attention_carry_keep writes the keys and values of the last `kept` tokens to the ring, one token
// per block. Without pos all sequences start at 0.
extern "C" __global__ void __launch_bounds__(128)
attention_carry_keep(const K_T *k, const V_T *v, KEY_T *key, VALUE_T *value, const int *pos, int tokens, int slots, int kept,
                     int cols, int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value) {
  begin_early();
  int b = blockIdx.x / kept, t = tokens - kept + blockIdx.x % kept;
  int64_t from = (int64_t)b * tokens + t, to = (int64_t)b * slots + ((pos ? pos[b] : 0) + t) % slots;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    store(key + to * stride_key + c, to_float(k[from * stride_k + c]));
    store(value + to * stride_value + c, to_float(v[from * stride_v + c]));
  }
}

// line_up copies 8 channels of a slot of the ring, and of those of the call's tokens that belong in
// the same slot, to the line. start is the sequence's position.
__device__ __forceinline__ void line_up(const bf16 *own, bf16 *ring, bf16 *line, int start, int tokens, int slot, int slots, int cols,
                                        int64_t stride_own, int64_t stride_ring) {
  int at = (slot - start % slots + slots) % slots;
  uint4 x = make_uint4(0, 0, 0, 0);
  ring += slot * stride_ring;
  if (start + at >= slots) x = *(const uint4 *)ring;
  *(uint4 *)(line + (int64_t)at * cols) = x;
  for (int t = at; t < tokens; t += slots) {
    x = *(const uint4 *)(own + t * stride_own);
    *(uint4 *)(line + (int64_t)(slots + t) * cols) = x;
  }
  if (at < tokens) *(uint4 *)ring = x;
}

// attention_carry_line copies the ring's keys and values, in the order of positions, and then the
// call's own, to lines of slots + tokens per row, with zeros before the start of the sequence. It
// also updates the ring.
extern "C" __global__ void __launch_bounds__(256)
attention_carry_line(const bf16 *k, const bf16 *v, bf16 *key, bf16 *value, const int *pos, bf16 *line_key, bf16 *line_value, int rows, int tokens,
                     int slots, int cols, int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value) {
  int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
  int c = i % (cols / 8) * 8, slot = i / (cols / 8) % slots, row = i / (cols / 8) / slots;
  if (row >= rows) return;
  int64_t own = (int64_t)row * tokens, ring = (int64_t)row * slots, line = (own + ring) * cols + c;
  line_up(k + own * stride_k + c, key + ring * stride_key + c, line_key + line, pos[row], tokens, slot, slots, cols, stride_k, stride_key);
  line_up(v + own * stride_v + c, value + ring * stride_value + c, line_value + line, pos[row], tokens, slot, slots, cols, stride_v, stride_value);
}
