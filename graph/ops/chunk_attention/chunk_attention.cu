// Kernels between the matrix products. A matrix of scores has one row per query and one column per
// key that the queries may see. Scores are float, with rows ld apart; P_T is the type of the
// products' inputs that are computed from them. Lengths and offsets are in elements.

// Keys is the range of columns that a row's query sees.
struct Keys {
  int first, own;
};

// Places determines this range. In a chunk of a whole text the queries and the keys are the same
// tokens. By document the first key is `before` tokens before the first query; start is where each
// query's document begins, and the first query is token `token` of its row.
struct Places {
  const int *start;
  int before, token, chunk;
  __device__ __forceinline__ Keys of(int i) const {
#ifdef BY_DOCUMENT
    return {before + i - (token + i - start[i]) % chunk, before + i};
#else
    return {0, i};
#endif
  }
};

#ifdef P_T
// A block handles one query: it turns its scores q k into the weights of the keys that it sees, and
// zeros for the rest of the row. lse points to the first query's.
extern "C" __global__ void __launch_bounds__(256)
chunk_attention_softmax(const float *scores, const float *bias, P_T *weights, float *lse, int columns, int ld, float scale,
                        const int *start, int before, int token, int chunk) {
  __shared__ float shared[33];
  int i = blockIdx.x;
  Keys keys = Places{start, before, token, chunk}.of(i);
  scores += (int64_t)i * ld, weights += (int64_t)i * ld;
  auto score = [&](int j) { return scores[j] * scale + bias[keys.own - j]; };
  float greatest = -INF, sum = 0.f;
  for (int j = keys.first + threadIdx.x; j <= keys.own; j += blockDim.x) greatest = fmaxf(greatest, score(j));
  greatest = block_max(greatest, shared);
  for (int j = keys.first + threadIdx.x; j <= keys.own; j += blockDim.x) sum += expf(score(j) - greatest);
  sum = block_sum(sum, shared);
  float total = greatest + logf(sum), inverse = 1.f / sum;
  for (int j = threadIdx.x; j < columns; j += blockDim.x)
    store(weights + j, keys.first <= j && j <= keys.own ? expf(score(j) - greatest) * inverse : 0.f);
  if (threadIdx.x == 0) lse[i] = total;
}
#endif

#ifdef DS_T
// A block handles one query. From its scores q k and the products do v it computes the weights P
// and dS / sqrt(D), with zeros for keys that it doesn't see and rows ld_factors apart. It
// overwrites the scores with dS.
extern "C" __global__ void __launch_bounds__(256)
chunk_attention_softmax_backward(float *scores, const float *products, const float *bias, const float *lse, const O_T *o, const DO_T *dout,
                                 DS_T *weights, DS_T *ds, int64_t stride_o, int64_t stride_do, int columns, int ld, int ld_factors, int channels,
                                 float scale, const int *start, int before, int token, int chunk) {
  __shared__ float shared[33];
  int i = blockIdx.x;
  Keys keys = Places{start, before, token, chunk}.of(i);
  float delta = 0.f;
  for (int c = threadIdx.x; c < channels; c += blockDim.x) delta += load(o + i * stride_o + c) * load(dout + i * stride_do + c);
  delta = block_sum(delta, shared);
  scores += (int64_t)i * ld, products += (int64_t)i * ld, weights += (int64_t)i * ld_factors, ds += (int64_t)i * ld_factors;
  float own = lse[i];
  for (int j = threadIdx.x; j < columns; j += blockDim.x) {
    float p = 0.f, d = 0.f;
    if (keys.first <= j && j <= keys.own) p = expf(scores[j] * scale + bias[keys.own - j] - own), d = p * (products[j] - delta);
    if (j <= keys.own) scores[j] = d;
    store(weights + j, p), store(ds + j, d * scale);
  }
}

// chunk_attention_distances adds dS of every PARTS-th query and the key d tokens before it to parts
// [PARTS][most] of dbias. With `begin` it sets them instead. There are n queries.
extern "C" __global__ void __launch_bounds__(128)
chunk_attention_distances(const float *ds, float *parts, int n, int ld, int before, int most, int begin) {
  int d = blockIdx.x * blockDim.x + threadIdx.x, part = blockIdx.y;
  if (d >= most) return;
  float sum = 0.f;
  int first = max(d - before, 0); // the first query whose keys reach back that far
  for (int i = first + (part - first % PARTS + PARTS) % PARTS; i < n; i += PARTS) sum += ds[(int64_t)i * ld + before + i - d];
  float *to = parts + (int64_t)part * most + d;
  *to = begin ? sum : *to + sum;
}

// chunk_attention_dbias adds the parts. No query and key are more than `most` apart.
extern "C" __global__ void __launch_bounds__(256)
chunk_attention_dbias(const float *parts, float *dbias, int most, int distances) {
  int d = blockIdx.x * blockDim.x + threadIdx.x;
  if (d >= distances) return;
  float sum = 0.f;
  if (d < most)
    for (int p = 0; p < PARTS; p++) sum += parts[(int64_t)p * most + d];
  dbias[d] = sum;
}
#endif

#ifdef KEY_T
// A sequence in pieces: the token at position p is in slot p % slots of key and value, and sees the
// tokens of its chunk from position p - p % slots on.

constexpr int OWN = 8; // keys whose loads overlap

// Carried is a token and the keys that it sees, those of its chunk. Keys from position start on
// belong to this call.
struct Carried {
  int row, text, start, first, count, tokens, slots;
  __device__ __forceinline__ Carried(const int *pos, int tokens, int slots) : row(blockIdx.x), text(row / tokens), start(pos[text]), tokens(tokens), slots(slots) {
    int p = start + row % tokens;
    first = p - p % slots, count = p - first + 1;
  }
  // at returns channel c of key j, or of its value: from slot j of kept, or from fresh.
  template <typename Kept, typename Fresh>
  __device__ __forceinline__ float at(int j, int c, const Kept *kept, int64_t stride_kept, const Fresh *fresh, int64_t stride_fresh) const {
    if (j >= count) return 0.f;
    return first + j < start ? load(kept + ((int64_t)text * slots + j) * stride_kept + c)
                             : load(fresh + ((int64_t)text * tokens + first + j - start) * stride_fresh + c);
  }
};

// chunk_attention_carry_scores computes the logits [B T][slots]; a warp handles OWN keys of a token.
extern "C" __global__ void __launch_bounds__(256)
chunk_attention_carry_scores(const Q_T *q, const K_T *k, const KEY_T *key, const float *bias, const int *pos, float *scores, int tokens,
                             int slots, int width, float scale, int64_t stride_q, int64_t stride_k, int64_t stride_key) {
  begin_early();
  Carried t(pos, tokens, slots);
  int lane = threadIdx.x % WARP, j = (blockIdx.y * 8 + threadIdx.x / WARP) * OWN;
  if (j >= t.count) return;
  float dot[OWN] = {};
  for (int c = lane; c < width; c += WARP) {
    float x = load(q + t.row * stride_q + c);
#pragma unroll
    for (int n = 0; n < OWN; n++) dot[n] += x * t.at(j + n, c, key, stride_key, k, stride_k);
  }
#pragma unroll
  for (int n = 0; n < OWN; n++) {
    float sum = warp_sum(dot[n]);
    if (lane == 0 && j + n < t.count) scores[(int64_t)t.row * slots + j + n] = sum * scale + bias[t.count - 1 - j - n];
  }
}

// chunk_attention_carry: a block handles 32 channels of a token; each warp adds every 8th key.
extern "C" __global__ void __launch_bounds__(256)
chunk_attention_carry(const V_T *v, const VALUE_T *value, const float *scores, const int *pos, O_T *o, int tokens, int slots, int channels,
                      int64_t stride_v, int64_t stride_value, int64_t stride_o) {
  __shared__ float shared[256];
  begin_early();
  Carried t(pos, tokens, slots);
  int c = blockIdx.y * WARP + threadIdx.x % WARP;
  scores += (int64_t)t.row * slots;
  float greatest = -INF;
  for (int j = threadIdx.x; j < t.count; j += blockDim.x) greatest = fmaxf(greatest, scores[j]);
  greatest = block_max(greatest, shared);
  float total = 0.f, sum = 0.f;
  for (int j0 = threadIdx.x / WARP; j0 < t.count; j0 += 8 * OWN) {
    float x[OWN];
#pragma unroll
    for (int n = 0; n < OWN; n++) x[n] = c < channels ? t.at(j0 + 8 * n, c, value, stride_value, v, stride_v) : 0.f;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
      float weight = j0 + 8 * n < t.count ? expf(scores[j0 + 8 * n] - greatest) : 0.f;
      total += weight, sum += weight * x[n];
    }
  }
  total = warps_sum(total, shared), sum = warps_sum(sum, shared);
  if (threadIdx.x < WARP && c < channels) store(o + t.row * stride_o + c, sum / total);
}

// chunk_attention_keep writes the keys and values of the last `kept` tokens to their slots. A block
// handles one token.
extern "C" __global__ void __launch_bounds__(128)
chunk_attention_keep(const K_T *k, const V_T *v, KEY_T *key, VALUE_T *value, const int *pos, int tokens, int slots, int kept, int width,
                     int channels, int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value) {
  begin_early();
  int b = blockIdx.x / kept, t = tokens - kept + blockIdx.x % kept;
  int64_t from = (int64_t)b * tokens + t, to = (int64_t)b * slots + (pos[b] + t) % slots;
  for (int c = threadIdx.x; c < width; c += blockDim.x) store(key + to * stride_key + c, load(k + from * stride_k + c));
  for (int c = threadIdx.x; c < channels; c += blockDim.x) store(value + to * stride_value + c, load(v + from * stride_v + c));
}
#endif
