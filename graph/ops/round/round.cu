// y = x in y's type. A block handles SHARE elements per thread of one row, and `tiles` blocks
// handle a row.

constexpr int SHARE = 8;
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void round_tile(const X_T *x, Y_T *y, int cols) {
  float v[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
round_rows(const X_T *x, Y_T *y, int64_t stride_x, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, y += row * stride_y + first;
  int width = min(widest<WIDE>(cols, x, stride_x), widest<WIDE>(cols, y, stride_y));
  if (width == WIDE)
    round_tile<WIDE>(x, y, cols - first);
  else if (width == 4)
    round_tile<4>(x, y, cols - first);
  else
    round_tile<1>(x, y, cols - first);
}
