// y = silu(x), and its gradient. A block handles SHARE elements per thread of one row, and `tiles`
// blocks handle a row. Output 0 may be an input itself: a thread reads everything that it
// overwrites first.

constexpr int SHARE = 8;

#ifdef Y_T
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_tile(const X_T *x, Y_T *y, int cols) {
  float v[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] = silu(v[i]);
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
silu_rows(const X_T *x, Y_T *y, int64_t stride_x, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, y += row * stride_y + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(y, stride_y))
    forward_tile<WIDE>(x, y, cols - first);
  else
    forward_tile<1>(x, y, cols - first);
}
#endif

#ifdef DX_T
constexpr int WIDE = sizeof(X_T) + sizeof(DY_T) + sizeof(DX_T) == 6 ? 8 : 4;

template <int Width> __device__ __forceinline__ void backward_tile(const X_T *x, const DY_T *dy, DX_T *dx, int cols) {
  float v[SHARE], d[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  load_share<Width, SHARE>(dy, threadIdx.x, blockDim.x, cols, d);
#pragma unroll
  for (int i = 0; i < SHARE; i++) d[i] *= silu_grad(v[i]);
  store_share<Width, SHARE>(dx, threadIdx.x, blockDim.x, cols, d);
}

extern "C" __global__ void __launch_bounds__(256)
silu_backward(const X_T *x, const DY_T *dy, DX_T *dx, int64_t stride_x, int64_t stride_dy, int64_t stride_dx, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, dy += row * stride_dy + first, dx += row * stride_dx + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(dy, stride_dy) && aligned<WIDE>(dx, stride_dx))
    backward_tile<WIDE>(x, dy, dx, cols - first);
  else
    backward_tile<1>(x, dy, dx, cols - first);
}
#endif
