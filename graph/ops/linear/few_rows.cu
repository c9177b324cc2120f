// y = x w' (+ z) where x has few rows, as in decoding: each weight is read once, and the time
// is memory's. A kernel begins to read weights before what it multiplies them with is there.
// A block makes columns of y that lie side by side; its warps share them and K.
//
// With TAPS the first columns of y are channels that are convolved over time, with TAPS taps, and
// go through SiLU (causal_conv): tail [rows TAPS-1 channels] is what came before, oldest first.
//
// Macros: K; NORM where x is normalised first, GATED where y is silu(a) b of the halves [a b]
// of the product's columns, ADD where z is added; the types X_T, W_T
// and Y_T; WARPS of a block, BLOCKS of a multiprocessor.

constexpr int THREADS = WARPS * WARP;
#ifdef GATED
constexpr int MATRICES = 2;
#else
constexpr int MATRICES = 1;
#endif

#ifdef TAPS
#define CONVOLUTION , const float *taps, const float *bias, float *tail, int channels
#else
#define CONVOLUTION
#endif

// OPERANDS are a kernel's parameters: cols are y's, strides in elements. But in the form ANY,
// rows of w lie one behind the other.
#define OPERANDS                                                                                                          \
  const X_T *x, const float *gain, const W_T *w, const float *z, Y_T *y, int rows, int cols, float epsilon, int64_t stride_x, \
      int64_t stride_w, int64_t stride_z, int64_t stride_y CONVOLUTION

// finish is an element of y, given those of the products, and of z.
__device__ __forceinline__ float finish(float a, float b, float z) {
#ifdef GATED
  a = silu(a) * b;
#endif
  return a + z;
}

#ifdef TAPS
// Channel is one that is convolved: its taps and bias, and what a row's tail has of it.
struct Channel {
  float taps[TAPS], past[TAPS], bias;

  __device__ __forceinline__ void load(const float *all_taps, const float *all_bias, const float *tail, int c, int channels) {
#pragma unroll
    for (int j = 0; j < TAPS; j++) taps[j] = all_taps[c * TAPS + j], past[j] = j < TAPS - 1 ? tail[(int64_t)j * channels + c] : 0.f;
    bias = all_bias[c];
  }
  // take gives the channel's next result, and moves the tail on.
  __device__ __forceinline__ float take(float u, float *tail, int c, int channels) {
    past[TAPS - 1] = u;
    float v = bias;
#pragma unroll
    for (int j = 0; j < TAPS; j++) v += taps[j] * past[j];
#pragma unroll
    for (int j = 0; j < TAPS - 1; j++) tail[(int64_t)j * channels + c] = past[j + 1];
    return silu(v);
  }
};
#endif

// RESULT is what becomes of a column's sum in a row: the channel's next result where it is one.
#ifdef TAPS
#define RESULT(row, col, sum) result(sum, row, col, taps, bias, tail, channels)
__device__ __forceinline__ float result(float sum, int row, int col, const float *taps, const float *bias, float *tail, int channels) {
  if (col >= channels) return sum;
  Channel c;
  tail += (int64_t)row * (TAPS - 1) * channels;
  c.load(taps, bias, tail, col, channels);
  return c.take(sum, tail, col, channels);
}
#else
#define RESULT(row, col, sum) sum
#endif

// load_once is for what is read once in a run, and by one thread.
__device__ __forceinline__ uint4 load_once16(const void *p) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}
__device__ __forceinline__ uint2 load_once8(const void *p) {
  uint2 r;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
  return r;
}

extern __shared__ __align__(128) unsigned char memory[];
