// The kernels between the matrix products of the loss: they count the targets, turn a chunk's rows
// of logits into nll and, with GRADIENTS, into their gradients, and take the mean.

// linear_cross_entropy_count computes 1 / the number of targets that count.
extern "C" __global__ void __launch_bounds__(1024) linear_cross_entropy_count(const int *targets, float *share, int n) {
  __shared__ double shared[33];
  int count = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += blockDim.x) count += targets[i] >= 0;
  double all = block_sum((double)count, shared);
  if (threadIdx.x == 0) *share = (float)(1. / fmax(all, 1.));
}

// linear_cross_entropy_part computes the same for one part of a batch, from the numbers of targets
// and parts of the whole batch.
extern "C" __global__ void __launch_bounds__(32) linear_cross_entropy_part(const int *count, float *share) {
  if (threadIdx.x == 0) *share = count[0] > 0 ? (float)((double)count[1] / (double)count[0]) : 1.f;
}

// linear_cross_entropy_mean adds in an order that depends only on n.
extern "C" __global__ void __launch_bounds__(1024)
linear_cross_entropy_mean(const float *nll, const float *share, float *loss, int n) {
  __shared__ double shared[33];
  double sum = 0.;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += (double)nll[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) *loss = (float)(sum * (double)*share);
}

constexpr int WIDE = 16 / sizeof(LOGIT_T); // logits that a thread loads at once
constexpr int AHEAD = 2;                   // number of loads in flight before it uses them

__device__ __forceinline__ float exp_of(float x) { return sizeof(LOGIT_T) == 2 ? fast_exp(x) : expf(x); }

// without_target excludes the target's logit, and anything beyond the vocabulary, from the sum.
__device__ __forceinline__ void without_target(float x[WIDE], int first, int target, int vocab) {
  if ((uint32_t)(target - first) < WIDE || first + WIDE > vocab) {
#pragma unroll
    for (int i = 0; i < WIDE; i++)
      if (first + i == target || first + i >= vocab) x[i] = -INF;
  }
}

// Vectors are a thread's logits of a row. With HELD, that many vectors stay in registers, and the row
// is read only once.
#ifdef HELD
constexpr int RESIDENT = 2; // blocks per SM
struct Vectors {
  int own, step, vocab;
  uint4 held[HELD];

  __device__ __forceinline__ Vectors(const LOGIT_T *row, int vocab) : own(threadIdx.x * WIDE), step(blockDim.x * WIDE), vocab(vocab) {
#pragma unroll
    for (int u = 0; u < HELD; u++)
      if (own + u * step < vocab) held[u] = *(const uint4 *)(row + own + u * step);
  }
  // each calls work(x, first) with each vector and the index of its first element.
  template <typename Work> __device__ __forceinline__ void each(Work work) const {
#pragma unroll
    for (int u = 0; u < HELD; u++) {
      if (own + u * step >= vocab) break;
      float x[WIDE];
      load_vector<WIDE>((const LOGIT_T *)&held[u], x);
      work(x, own + u * step);
    }
  }
};
#else
constexpr int RESIDENT = 3;
struct Vectors {
  const LOGIT_T *row;
  int vocab;

  __device__ __forceinline__ Vectors(const LOGIT_T *row, int vocab) : row(row), vocab(vocab) {}
  template <typename Work> __device__ __forceinline__ void each(Work work) const {
    int step = blockDim.x * WIDE;
    for (int j = threadIdx.x * WIDE; j < vocab; j += AHEAD * step) {
      float x[AHEAD][WIDE];
#pragma unroll
      for (int u = 0; u < AHEAD; u++)
        if (j + u * step < vocab) load_vector<WIDE>(row + j + u * step, x[u]);
#pragma unroll
      for (int u = 0; u < AHEAD; u++) {
        if (j + u * step >= vocab) break;
        work(x[u], j + u * step);
      }
    }
  }
};
#endif

// A block handles one row. Rows are padded to whole vectors with data that the products don't read.
// A target beyond the vocabulary, which the data loader rejects, makes its row NaN, so that it
// can't go unnoticed.
//
// The target's own term is kept separate: 1 - p[target] is the sum of the others' probabilities,
// which float would lose to rounding where the model is confident.
extern "C" __global__ void __launch_bounds__(512, RESIDENT)
linear_cross_entropy_rows(LOGIT_T *logits, const int *targets, float *nll, const float *share, int64_t stride, int vocab) {
  __shared__ float shared[33];
  LOGIT_T *row = logits + blockIdx.x * stride;
  int target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) nll[blockIdx.x] = 0.f;
#ifdef GRADIENTS
    float zeros[WIDE] = {};
    for (int j = threadIdx.x * WIDE; j < vocab; j += blockDim.x * WIDE) store_vector<WIDE>(row + j, zeros);
#endif
    return;
  }
  float logit = target < vocab ? load(row + target) : __int_as_float(0x7fffffff);

  Vectors vectors(row, vocab);
  float most = -INF, sum = 0.f; // of exp(x - most)
  vectors.each([&](float *x, int first) {
    without_target(x, first, target, vocab);
    float top = most;
#pragma unroll
    for (int i = 0; i < WIDE; i++) top = fmaxf(top, x[i]);
    float base = top == -INF ? 0.f : top; // only the target so far, or NaNs
    sum *= exp_of(most - base);
#pragma unroll
    for (int i = 0; i < WIDE; i++) sum += exp_of(x[i] - base);
    most = top;
  });
  float greatest = fmaxf(block_max(most, shared), logit);
  float others = block_sum(most == -INF ? sum : sum * exp_of(most - greatest), shared);
  float all = others + exp_of(logit - greatest);
  if (threadIdx.x == 0) nll[blockIdx.x] = logit == greatest ? log1pf(others) : logf(all) - (logit - greatest);
#ifdef GRADIENTS
  float scale = *share / all;
  vectors.each([&](float *x, int first) {
#pragma unroll
    for (int i = 0; i < WIDE; i++) x[i] = exp_of(x[i] - greatest) * scale;
    if ((uint32_t)(target - first) < WIDE) {
#pragma unroll
      for (int i = 0; i < WIDE; i++)
        if (first + i == target) x[i] = -others * scale;
    }
    store_vector<WIDE>(row + first, x);
  });
#endif
}
