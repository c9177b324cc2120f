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

// sort sorts the block's keys in descending order (bitonic sort); thread t holds keys [t * EACH,
// (t + 1) * EACH). Threads of the same warp exchange keys by shuffles, others through shared memory.
__device__ __forceinline__ void sort(uint64_t key[EACH], uint64_t *shared) {
  int first = threadIdx.x * EACH;
  auto keep = [&](int i, uint64_t other, bool larger) {
    if ((key[i] < other) == larger) key[i] = other;
  };
  for (int size = 2; size <= PART; size *= 2) {
    int gap = size / 2;
    // Runs of size keys are descending and ascending in turn. Of two keys gap apart, the larger one
    // comes first in a descending run.
    for (; gap >= WARP * EACH; gap /= 2) {
      bool larger = ((first & gap) == 0) == ((first & size) == 0);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < EACH; i++) shared[i * THREADS + threadIdx.x] = key[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < EACH; i++) keep(i, shared[i * THREADS + (threadIdx.x ^ gap / EACH)], larger);
    }
    for (; gap >= EACH; gap /= 2) {
      bool larger = ((first & gap) == 0) == ((first & size) == 0);
#pragma unroll
      for (int i = 0; i < EACH; i++) keep(i, __shfl_xor_sync(FULL, key[i], gap / EACH), larger);
    }
#pragma unroll
    for (int near = EACH / 2; near > 0; near /= 2) {
      if (near >= size) continue;
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        if (i & near) continue;
        bool descending = ((first + i) & size) == 0;
        uint64_t a = key[i], b = key[i + near];
        if ((a < b) == descending) key[i] = b, key[i + near] = a;
      }
    }
  }
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
    int j = first + threadIdx.x * EACH + i;
    key[i] = j < n ? key_of(scores[j], j) : 0;
    top = max(top, key[i]);
  }
  top = block_highest(top, tops);
  if (threadIdx.x == 0) highest[at] = top;
  if (s.temperature == 0.) return;
  bool ranks = s.ranks(n);
  if (ranks) sort(key, own);
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

// Search finds how many of a row's most likely tokens are enough for a condition. Parts are sorted;
// the tokens [from, to) of each part are the candidates for the last token that is needed. In each
// round every warp tries one key, and counts the tokens down to it in all parts.
struct Search {
  static constexpr uint64_t NONE = ~0ull;

  double scale[PARTS]; // makes a part's weights relative to the row's largest logit
  int from[PARTS], to[PARTS], counts[WARPS][PARTS];
  uint64_t tried[WARPS]; // NONE if a warp had nothing to try
  bool enough[WARPS];

  // begin makes all tokens candidates.
  __device__ __forceinline__ void begin(int n) {
    for (int p = threadIdx.x; p < PARTS; p += THREADS) to[p] = min(PART, n - p * PART);
  }

  // mass returns the sum of the weights of the first count tokens of a part.
  __device__ __forceinline__ double mass(const float *sums, int part, int count) const {
    return count == 0 ? 0. : sums[part * PART + count - 1] * scale[part];
  }

  // choose returns the key that this warp tries. The warps divide the part with the most candidates.
  // If no part has more than one, or the warps together can try all remaining candidates, each warp
  // tries its own candidate of all parts.
  __device__ __forceinline__ uint64_t choose(const uint64_t *keys, bool &all) const {
    int warp = threadIdx.x / WARP, widest = 0, before = 0;
    uint64_t own = NONE;
    for (int p = 0; p < PARTS; p++) {
      int n = to[p] - from[p];
      if (n > to[widest] - from[widest]) widest = p;
      if (warp >= before && warp < before + n) own = keys[p * PART + from[p] + warp - before];
      before += n;
    }
    all = before <= WARPS;
    int n = to[widest] - from[widest];
    return all || n == 1 ? own : keys[widest * PART + from[widest] + n * (warp + 1) / (WARPS + 1)];
  }

  // run returns the key of the last token that is needed, or 0 if all candidates together are not
  // enough. Only the tokens up to it remain candidates. It sets total to the sum of their weights.
  template <typename Enough> __device__ __forceinline__ uint64_t run(const uint64_t *keys, const float *sums, double &total, Enough is_enough) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int p = threadIdx.x; p < PARTS; p += THREADS) from[p] = 0;
    __syncthreads();
    uint64_t last = 0;
    for (bool all = false; !all;) {
      uint64_t key = choose(keys, all);
      int count = 0;
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
        count += lo, sum += mass(sums, p, lo);
      }
#pragma unroll
      for (int d = WARP / 2; d > 0; d /= 2) count += __shfl_xor_sync(FULL, count, d), sum += __shfl_xor_sync(FULL, sum, d);
      if (lane == 0) tried[warp] = key, enough[warp] = key != NONE && is_enough(count, sum);
      __syncthreads();
      // The highest key that is enough, and the lowest that is not.
      bool yes = enough[lane], no = !yes && tried[lane] != NONE;
      uint64_t high = warp_max(yes ? tried[lane] : 0), low = ~warp_max(no ? ~tried[lane] : 0);
      uint32_t highs = __ballot_sync(FULL, yes && tried[lane] == high), lows = __ballot_sync(FULL, no && tried[lane] == low);
      for (int p = threadIdx.x; p < PARTS; p += THREADS) {
        if (highs != 0) to[p] = counts[__ffs(highs) - 1][p];
        if (lows != 0) from[p] = min(counts[__ffs(lows) - 1][p], to[p]); // rounding may put low below high
      }
      if (highs != 0) last = high;
      __syncthreads();
    }
    total = 0.;
    for (int p = 0; p < PARTS; p++) total += mass(sums, p, to[p]);
    __syncthreads();
    return last;
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
    search.begin(n);
    if (s.top_k > 0 && s.top_k < n) last = search.run(keys, sums, mass, [&](int count, double) { return count >= s.top_k; });
    if (s.top_p < 1.) {
      double most = s.top_p * mass;
      last = search.run(keys, sums, mass, [&](int, double sum) { return sum >= most; });
    }
    double draw = s.uniform * mass;
    uint64_t drawn = search.run(keys, sums, mass, [&](int, double sum) { return sum > draw; });
    if (threadIdx.x == 0) *token = number_of(drawn != 0 ? drawn : last != 0 ? last : best);
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
