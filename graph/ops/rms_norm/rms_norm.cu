// y = x rstd w and its gradient. WARPS warps hold a row of D in registers, so that x is
// read once; a block has ROWS rows at a time.

constexpr int THREADS = WARPS * WARP; // of a row
constexpr int SHARE = (D + THREADS * 8 - 1) / (THREADS * 8) * 8;

// divisor is a weight, or what both passes take for one that is nearly 0.
__device__ __forceinline__ float divisor(float w) { return fabsf(w) < 1e-20f ? copysignf(1e-20f, w) : w; }

// row_sum adds x over the threads of a row, in a fixed order. Its shared memory must
// not be used again before another barrier.
__device__ __forceinline__ float row_sum(float x, float *shared) {
  x = warp_sum(x);
  if (WARPS == 1) return x;
  int warp = threadIdx.x / WARP;
  if (threadIdx.x % WARP == 0) shared[warp] = x;
  __syncthreads();
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) sum += shared[warp / WARPS * WARPS + i];
  return sum;
}

#ifdef Y_T
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_row(const X_T *x, const float *w, Y_T *y, float *rstd, int cols, float eps) {
  __shared__ float shared[ROWS * WARPS];
  int thread = threadIdx.x % THREADS;
  float v[SHARE], weight[SHARE], sum = 0.f;
  load_share<Width, SHARE>(x, thread, THREADS, cols, v);
  load_share<Width, SHARE>(w, thread, THREADS, cols, weight);
#pragma unroll
  for (int i = 0; i < SHARE; i++) sum += v[i] * v[i];
  float r = rsqrtf(row_sum(sum, shared) * (1.f / D) + eps);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] *= r * divisor(weight[i]);
  store_share<Width, SHARE>(y, thread, THREADS, cols, v);
  if (thread == 0 && cols > 0) *rstd = r;
}

extern "C" __global__ void __launch_bounds__(THREADS *ROWS)
rms_norm(const X_T *x, const float *w, Y_T *y, float *rstd, int64_t stride_x, int64_t stride_y, int rows, float eps) {
  int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / THREADS;
  int cols = row < rows ? D : 0; // a missing row does nothing but wait at barriers
  const X_T *from = x + row * stride_x;
  Y_T *to = y + row * stride_y;
  // The same for all rows of a block, since there is a barrier behind it.
  if (D % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(w, 0) && aligned<WIDE>(y, stride_y))
    forward_row<WIDE>(from, w, to, rstd + row, cols, eps);
  else
    forward_row<1>(from, w, to, rstd + row, cols, eps);
}
#endif

#ifdef DY_T
// With a Z_T, z is added to dx.
#ifdef Z_T
#define Z_PARAMETERS , const Z_T *z, int64_t stride_z
#define Z_ARGUMENTS , z, stride_z
#define Z_ALIGNED &&aligned<4>(z, stride_z)
#else
#define Z_PARAMETERS
#define Z_ARGUMENTS
#define Z_ALIGNED
#endif

// With a ROUNDED_T, dx is written there, too.
#ifdef ROUNDED_T
#define ROUNDED_PARAMETERS , ROUNDED_T *rounded, int64_t stride_rounded
#define ROUNDED_ARGUMENTS , rounded, stride_rounded
#define ROUNDED_ALIGNED &&aligned<4>(rounded, stride_rounded)
#else
#define ROUNDED_PARAMETERS
#define ROUNDED_ARGUMENTS
#define ROUNDED_ALIGNED
#endif

// With FROM_Y, x is y, of which x rstd is made.

// A block takes every gridDim'th group of ROWS rows, and leaves its part of dw in
// partials[blockIdx]. dx may be dy or z itself: a row is read before it is written.
template <int Width>
__device__ __forceinline__ void backward_rows(const X_T *x, const float *w, const float *rstd, const DY_T *dy, float *dx, float *partials,
                                              int64_t stride_x, int64_t stride_dy, int64_t stride_dx, int rows Z_PARAMETERS ROUNDED_PARAMETERS) {
  // Two sets of sums: the next row's are written while some threads still read.
  __shared__ float shared[2][ROWS * WARPS];
  __shared__ __align__(16) float other[ROWS > 1 ? D : 4];
  int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
  float weight[SHARE], dw[SHARE] = {}, v[SHARE], g[SHARE], r;
  load_share<Width, SHARE>(w, thread, THREADS, D, weight);
#ifdef FROM_Y
  float inverse[SHARE];
#pragma unroll
  for (int i = 0; i < SHARE; i++) inverse[i] = 1.f / divisor(weight[i]);
#endif

  auto load_row = [&](int64_t row, float *v, float *g, float &r) {
    int cols = row < rows ? D : 0;
    load_share<Width, SHARE>(x + row * stride_x, thread, THREADS, cols, v);
    load_share<Width, SHARE>(dy + row * stride_dy, thread, THREADS, cols, g);
    r = row < rows ? rstd[row] : 0.f;
  };
  int64_t row = (int64_t)blockIdx.x * ROWS + group, step = (int64_t)gridDim.x * ROWS;
  load_row(row, v, g, r);
  int phase = 0;
  // The count of rounds is the same for all groups of a block.
  for (int64_t first = (int64_t)blockIdx.x * ROWS; first < rows; first += step, row += step) {
    float next_v[SHARE], next_g[SHARE], next_r, dot = 0.f;
    load_row(row + step, next_v, next_g, next_r);
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
#ifdef FROM_Y
      v[i] *= inverse[i];
#else
      v[i] *= r;
#endif
      dot += weight[i] * g[i] * v[i];
    }
    float a = row_sum(dot, shared[phase]) * (1.f / D);
    phase ^= 1;
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      dw[i] += g[i] * v[i];
      g[i] = r * (weight[i] * g[i] - v[i] * a);
    }
#ifdef Z_T
    load_share<Width, SHARE>(z + row * stride_z, thread, THREADS, row < rows ? D : 0, v);
#pragma unroll
    for (int i = 0; i < SHARE; i++) g[i] += v[i];
#endif
    store_share<Width, SHARE>(dx + row * stride_dx, thread, THREADS, row < rows ? D : 0, g);
#ifdef ROUNDED_T
    store_share<Width, SHARE>(rounded + row * stride_rounded, thread, THREADS, row < rows ? D : 0, g);
#endif
#pragma unroll
    for (int i = 0; i < SHARE; i++) v[i] = next_v[i], g[i] = next_g[i];
    r = next_r;
  }

  for (int k = 1; k < ROWS; k++) { // group 0 adds the others' dw, in order
    __syncthreads();
    if (group == k) store_share<Width, SHARE>(other, thread, THREADS, D, dw);
    __syncthreads();
    if (group == 0) {
      load_share<Width, SHARE>(other, thread, THREADS, D, v);
#pragma unroll
      for (int i = 0; i < SHARE; i++) dw[i] += v[i];
    }
  }
  if (group == 0) store_share<Width, SHARE>(partials + (int64_t)blockIdx.x * D, thread, THREADS, D, dw);
}

extern "C" __global__ void __launch_bounds__(THREADS *ROWS)
rms_norm_backward(const X_T *x, const float *w, const float *rstd, const DY_T *dy, float *dx, float *partials, int64_t stride_x,
                  int64_t stride_dy, int64_t stride_dx, int rows Z_PARAMETERS ROUNDED_PARAMETERS) {
  if (D % 4 == 0 && aligned<4>(x, stride_x) && aligned<4>(w, 0) && aligned<4>(dy, stride_dy) && aligned<4>(dx, stride_dx) &&
      aligned<4>(partials, D) Z_ALIGNED ROUNDED_ALIGNED)
    backward_rows<4>(x, w, rstd, dy, dx, partials, stride_x, stride_dy, stride_dx, rows Z_ARGUMENTS ROUNDED_ARGUMENTS);
  else
    backward_rows<1>(x, w, rstd, dy, dx, partials, stride_x, stride_dy, stride_dx, rows Z_ARGUMENTS ROUNDED_ARGUMENTS);
}

// rms_norm_dw adds the blocks' parts of 32 columns: each warp every 32nd part, and
// then the warps in order.
extern "C" __global__ void __launch_bounds__(1024) rms_norm_dw(const float *partials, float *dw, int parts) {
  __shared__ float sums[32][WARP];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = blockIdx.x * WARP + lane;
  float sum = 0.f;
  if (j < D)
    for (int i = warp; i < parts; i += 32) sum += partials[(int64_t)i * D + j];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < D) {
    for (int i = 1; i < 32; i++) sum += sums[i][lane];
    dw[j] = sum;
  }
}
#endif
