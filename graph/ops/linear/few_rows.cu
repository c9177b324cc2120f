// y = x w' (+ z) where x has few rows, as in decoding: each weight is read once, and memory
// bandwidth determines the time. A kernel starts to read weights before its input is ready. A block
// computes adjacent columns of y; its warps share them and K.
//
// With TAPS the first columns of y are channels that are convolved over time, with TAPS taps, and
// passed through SiLU (causal_conv): tail [rows TAPS-1 channels] holds the past inputs, oldest
// first.
//
// Macros: K; NORM if x is normalized first, GATED if y is silu(a) b of the halves [a b] of the
// product's columns; the types X_T, W_T and Y_T; WARPS of a block, BLOCKS per SM. z may be null.

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

// OPERANDS are a kernel's parameters: cols are y's, strides are in elements. Except in
// linear_any_rows, the rows of w are contiguous.
#define OPERANDS                                                                                                          \
  const X_T *x, const float *gain, const W_T *w, const float *z, Y_T *y, int rows, int cols, float epsilon, int64_t stride_x, \
      int64_t stride_w, int64_t stride_z, int64_t stride_y CONVOLUTION

// finish computes an element of y from those of the products and of z.
__device__ __forceinline__ float finish(float a, float b, float z) {
#ifdef GATED
  a = silu(a) * b;
#endif
  return a + z;
}

#ifdef TAPS
// Channel is a channel that is convolved: its taps and bias, and its part of a row's tail.
struct Channel {
  float taps[TAPS], past[TAPS], bias;

  __device__ __forceinline__ void load(const float *all_taps, const float *all_bias, const float *tail, int c, int channels) {
#pragma unroll
    for (int j = 0; j < TAPS; j++) taps[j] = all_taps[c * TAPS + j], past[j] = j < TAPS - 1 ? tail[(int64_t)j * channels + c] : 0.f;
    bias = all_bias[c];
  }
  // take returns the channel's next output, and advances the tail.
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

// RESULT turns a column's sum in a row into the result: the next output of the convolution if the
// column is one of its channels.
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

// load_once is for data that is read once in a run, by one thread.
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
