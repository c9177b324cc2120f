// token[b] = a token drawn from the n logits of row b. sample_parts has one thread block per part
// of a row, PART logits. The block finds the largest logit and the sum of the weights,
// exp((logit - largest) / temperature). For top-k and top-p it also sorts the part, the most likely
// token first, and stores the cumulative sum of the weights. sample_rows has one block per row,
// which finds the token in the row's PARTS parts. No sum depends on the order in which blocks run.

constexpr int THREADS = 1024, WARPS = THREADS / WARP, EACH = PART / THREADS;

struct Settings {
  double temperature, top_p, uniform;
  int64_t top_k;

  __device__ __forceinline__ bool ranks(int n) const { return top_p < 1. || (top_k > 0 && top_k < n); }
  __device__ __forceinline__ float scale() const { return (float)fmin(1. / temperature, 3.4e38); }
};

#define OPERANDS                                                                                                                \
  const float *scores, const Settings *settings, uint64_t *keys, uint64_t *highest, float *sums, float *totals, int *token, int n, \
      int64_t stride

// weight returns the weight of a key's logit, relative to the largest logit of its part.
__device__ __forceinline__ float weight(uint64_t key, uint64_t highest, float scale) {
  if (key == 0) return 0.f;
  float x = score_of(key), top = score_of(highest);
  return x == top ? 1.f : expf((x - top) * scale);
}

__device__ __forceinline__ uint64_t block_highest(uint64_t x, uint64_t *shared) {
  x = warp_max(x);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
  __syncthreads();
  return warp_max(shared[threadIdx.x % WARP]);
}

// block_before returns the sum of x over the threads before this one (an exclusive prefix sum), in a
// fixed order.
__device__ __forceinline__ float block_before(float x, float *shared) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  auto upto = [&](float v) {
#pragma unroll
    for (int d = 1; d < WARP; d *= 2) {
      float w = __shfl_up_sync(FULL, v, d);
      if (lane >= d) v += w;
    }
    return v;
  };
  float sum = upto(x);
  if (lane == WARP - 1) shared[warp] = sum;
  __syncthreads();
  float others = upto(shared[lane]);
  float before = warp == 0 ? 0.f : __shfl_sync(FULL, others, warp - 1);
  float own = __shfl_up_sync(FULL, sum, 1);
  __syncthreads();
  return before + (lane == 0 ? 0.f : own);
}

extern "C" __global__ void __launch_bounds__(THREADS) sample_parts(OPERANDS) {
  __shared__ uint64_t own[PART];
  __shared__ uint64_t tops[WARPS];
  __shared__ float shared[WARPS];
  begin_early();
  int row = blockIdx.y, first = blockIdx.x * PART;
  int64_t at = (int64_t)row * PARTS + blockIdx.x;
  Settings s = settings[row];
  float scale = s.scale();
  scores += row * stride;
  uint64_t key[EACH], top = 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int j = first + i * THREADS + threadIdx.x;
    key[i] = j < n ? key_of(scores[j], j) : 0;
    top = max(top, key[i]);
  }
  top = block_highest(top, tops);
  if (threadIdx.x == 0) highest[at] = top;
  if (s.temperature == 0.) return;
  bool ranks = s.ranks(n);
  if (ranks) {
#pragma unroll
    for (int i = 0; i < EACH; i++) own[i * THREADS + threadIdx.x] = key[i];
    __syncthreads();
    for (int size = 2; size <= PART; size *= 2) {
      for (int gap = size / 2; gap > 0; gap /= 2) {
#pragma unroll
        for (int p = threadIdx.x; p < PART / 2; p += THREADS) {
          int i = 2 * p - (p & (gap - 1));
          uint64_t a = own[i], b = own[i + gap];
          if ((a < b) == ((i & size) == 0)) own[i] = b, own[i + gap] = a;
        }
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) key[i] = own[threadIdx.x * EACH + i];
  }
  float upto[EACH], sum = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++) upto[i] = sum += weight(key[i], top, scale);
  float before = block_before(sum, shared);
  if (threadIdx.x == THREADS - 1) totals[at] = before + sum;
  if (!ranks) return;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int64_t j = at * PART + threadIdx.x * EACH + i;
    keys[j] = key[i], sums[j] = before + upto[i];
  }
}

// Search finds how many of a row's most likely tokens are enough for a condition, by a search over
// keys. In each round every warp tries one key and counts the tokens down to it in all parts, which
// are sorted.
struct Search {
  double scale[PARTS]; // makes a part's weights relative to the row's largest logit
  int from[PARTS], to[PARTS], counts[WARPS][PARTS];
  bool enough[WARPS];

  // run returns the key of the last token that is needed; 0 stands for all tokens. It sets mass to
  // the sum of their weights.
  template <typename Enough>
  __device__ __forceinline__ uint64_t run(const uint64_t *keys, const float *sums, uint64_t best, double &mass, Enough is_enough) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    auto upto = [&](int part, int count) { return count == 0 ? 0. : sums[part * PART + count - 1] * scale[part]; };
    for (int p = threadIdx.x; p < PARTS; p += THREADS) from[p] = 0, to[p] = PART;
    __syncthreads();
    uint64_t yes = 0, no = best + 1;
    while (no - yes > 1) {
      uint64_t step = max((no - yes) / (WARPS + 1), (uint64_t)1);
      auto tried = [&](int w) { return min(yes + step * (w + 1), no - 1); };
      uint64_t key = tried(warp);
      int64_t count = 0;
      double sum = 0.;
      for (int p = lane; p < PARTS; p += WARP) {
        int lo = from[p], hi = to[p];
        while (lo < hi) {
          int middle = (lo + hi) / 2;
          if (keys[p * PART + middle] >= key)
            lo = middle + 1;
          else
            hi = middle;
        }
        counts[warp][p] = lo;
        count += lo, sum += upto(p, lo);
      }
#pragma unroll
      for (int d = WARP / 2; d > 0; d /= 2) count += __shfl_xor_sync(FULL, count, d), sum += __shfl_xor_sync(FULL, sum, d);
      if (lane == 0) enough[warp] = is_enough(count, sum);
      __syncthreads();
      uint32_t missed = __ballot_sync(FULL, !enough[lane]);
      int first = missed == 0 ? WARPS : __ffs(missed) - 1; // later warps have higher keys, and so fewer tokens
      for (int p = threadIdx.x; p < PARTS; p += THREADS) {
        if (first < WARPS) from[p] = counts[first][p];
        if (first > 0) to[p] = counts[first - 1][p];
      }
      uint64_t below = yes;
      if (first > 0) below = tried(first - 1);
      if (first < WARPS) no = tried(first);
      yes = below;
      __syncthreads();
    }
    mass = 0.;
    for (int p = 0; p < PARTS; p++) mass += upto(p, to[p]);
    __syncthreads();
    return yes;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS) sample_rows(OPERANDS) {
  __shared__ Search search;
  __shared__ float shared[WARPS];
  __shared__ int found;
  begin_early();
  int row = blockIdx.x, lane = threadIdx.x % WARP;
  Settings s = settings[row];
  scores += row * stride, highest += row * PARTS, totals += row * PARTS, token += row;
  keys += (int64_t)row * PARTS * PART, sums += (int64_t)row * PARTS * PART;
  uint64_t best = 0;
  for (int p = lane; p < PARTS; p += WARP) best = max(best, highest[p]);
  best = warp_max(best);
  if (s.temperature == 0. || best == 0) {
    if (threadIdx.x == 0) *token = number_of(best);
    return;
  }
  float scale = s.scale();
  for (int p = threadIdx.x; p < PARTS; p += THREADS) search.scale[p] = weight(highest[p], best, scale);
  __syncthreads();
  double all = 0.;
  for (int p = 0; p < PARTS; p++) all += totals[p] * search.scale[p];

  if (s.ranks(n)) {
    uint64_t last = 0; // the key of the least likely token that is kept
    double mass = all;
    if (s.top_k > 0 && s.top_k < n) last = search.run(keys, sums, best, mass, [&](int64_t count, double) { return count >= s.top_k; });
    if (s.top_p < 1.) {
      double most = mass;
      last = max(last, search.run(keys, sums, best, mass, [&](int64_t, double sum) { return sum >= s.top_p * most; }));
      mass = min(mass, most);
    }
    double draw = s.uniform * mass;
    last = max(last, search.run(keys, sums, best, mass, [&](int64_t, double sum) { return sum > draw; }));
    if (threadIdx.x == 0) *token = number_of(last == 0 ? best : last);
    return;
  }

  double draw = s.uniform * all;
  int part = 0;
  for (; part < PARTS && draw >= totals[part] * search.scale[part]; part++) draw -= totals[part] * search.scale[part];
  if (threadIdx.x == 0) found = n;
  __syncthreads();
  if (part < PARTS) {
    draw /= search.scale[part];
    float upto[EACH], sum = 0.f;
    int first = part * PART + threadIdx.x * EACH;
#pragma unroll
    for (int i = 0; i < EACH; i++) upto[i] = sum += first + i < n ? weight(key_of(scores[first + i], first + i), highest[part], scale) : 0.f;
    float before = block_before(sum, shared);
#pragma unroll
    for (int i = EACH - 1; i >= 0; i--)
      if (first + i < n && before + upto[i] > draw) atomicMin(&found, first + i);
  }
  __syncthreads();
  if (threadIdx.x == 0) *token = found < n ? found : number_of(best);
}
