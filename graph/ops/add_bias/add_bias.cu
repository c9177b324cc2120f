// y = x + bias, and the gradient of bias.

#ifdef Y_T
// A block handles SHARE elements per thread of one row, and `tiles` blocks handle a row. y may be x
// itself: a thread reads everything that it overwrites first.
constexpr int SHARE = 8;
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_tile(const X_T *x, const float *bias, Y_T *y, int cols) {
  float v[SHARE], b[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  load_share<Width, SHARE>(bias, threadIdx.x, blockDim.x, cols, b);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] += b[i];
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
add_bias(const X_T *x, const float *bias, Y_T *y, int64_t stride_x, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, bias += first, y += row * stride_y + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(bias, 0) && aligned<WIDE>(y, stride_y))
    forward_tile<WIDE>(x, bias, y, cols - first);
  else
    forward_tile<1>(x, bias, y, cols - first);
}
#endif

#ifdef DY_T
// A warp sums 32 columns of every 8th row of a block, and the block stores its sum in
// partials[blockIdx.y].
extern "C" __global__ void __launch_bounds__(256)
add_bias_backward(const DY_T *dy, float *partials, int64_t stride_dy, int rows, int cols, int rows_per_block) {
  __shared__ float shared[256];
  int j = blockIdx.x * WARP + threadIdx.x % WARP;
  int first = blockIdx.y * rows_per_block, last = min(first + rows_per_block, rows);
  float sum = 0.f;
  if (j < cols)
    for (int row = first + threadIdx.x / WARP; row < last; row += 8) sum += load(dy + row * stride_dy + j);
  sum = warps_sum(sum, shared);
  if (threadIdx.x < WARP && j < cols) partials[(int64_t)blockIdx.y * cols + j] = sum;
}

extern "C" __global__ void __launch_bounds__(1024) add_bias_sum(const float *partials, float *dbias, int parts, int cols) {
  sum_parts(partials, dbias, parts, cols);
}
#endif
