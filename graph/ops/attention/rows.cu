// Attention for any head width and element type, computed in float. A warp handles one row of
// queries or of keys and holds it in registers; a lane's channels are WARP apart. It visits only
// the visible pairs. These kernels serve float32, odd head widths, and unaligned operands.

constexpr int D = HEAD_DIM;
constexpr int SHARE = (D + WARP - 1) / WARP; // channels per lane
constexpr int WARPS = 4;                     // per block
constexpr int STEP = 4;                      // keys whose loads overlap

// Head is one head of the rows of a tensor.
template <typename Type> struct Head {
  Type *data;
  int64_t stride;

  __device__ __forceinline__ Head(Type *x, int64_t stride, int64_t row, int head)
      : data(x + row * stride + head * D), stride(stride) {}

  // load reads this lane's channels of a row, zeros beyond D.
  __device__ __forceinline__ void load(int64_t row, float x[SHARE]) const {
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      int c = i * WARP + threadIdx.x % WARP;
      x[i] = c < D ? to_float(data[row * stride + c]) : 0.f;
    }
  }
  __device__ __forceinline__ void put(int64_t row, const float x[SHARE], float scale) const {
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      int c = i * WARP + threadIdx.x % WARP;
      if (c < D) store(data + row * stride + c, scale * x[i]);
    }
  }
};

__device__ __forceinline__ float dot(const float x[SHARE], const float y[SHARE]) {
  float s = 0.f;
#pragma unroll
  for (int i = 0; i < SHARE; i++) s += x[i] * y[i];
  return warp_sum(s);
}
__device__ __forceinline__ void add_scaled(float y[SHARE], float a, const float x[SHARE]) {
#pragma unroll
  for (int i = 0; i < SHARE; i++) y[i] += a * x[i];
}

// Softmax is the online softmax of one query (arXiv 2205.14135): o is the sum of the values
// weighted by exp(logit - greatest), and sum the sum of the weights.
struct Softmax {
  float q[SHARE], o[SHARE], greatest, sum, scale;

  __device__ __forceinline__ Softmax(float scale) : greatest(-INF), sum(0.f), scale(scale) {
#pragma unroll
    for (int i = 0; i < SHARE; i++) o[i] = 0.f;
  }

  // attend processes n keys, of rows first, first + 1, ...
  template <typename Key, typename Value>
  __device__ __forceinline__ void attend(const Head<Key> &keys, const Head<Value> &values, int64_t first, int64_t n) {
    int64_t j = first, end = first + n;
    for (; j + STEP <= end; j += STEP) attend_step<STEP>(keys, values, j);
    for (; j < end; j++) attend_step<1>(keys, values, j);
  }

  template <int Keys, typename Key, typename Value>
  __device__ __forceinline__ void attend_step(const Head<Key> &keys, const Head<Value> &values, int64_t j) {
    float k[Keys][SHARE], v[Keys][SHARE], s[Keys], most = greatest;
#pragma unroll
    for (int i = 0; i < Keys; i++) keys.load(j + i, k[i]), values.load(j + i, v[i]);
#pragma unroll
    for (int i = 0; i < Keys; i++) s[i] = dot(q, k[i]) * scale, most = fmaxf(most, s[i]);
    float shrink = expf(greatest - most);
    greatest = most, sum *= shrink;
#pragma unroll
    for (int i = 0; i < SHARE; i++) o[i] *= shrink;
#pragma unroll
    for (int i = 0; i < Keys; i++) {
      float p = expf(s[i] - most);
      sum += p;
      add_scaled(o, p, v[i]);
    }
  }
};
