// z = x + y. A block handles SHARE elements per thread of one row, and `tiles` blocks handle a row.
// z may be x or y itself: a thread reads everything that it overwrites first.

constexpr int SHARE = 8;
// 16 bytes of the widest operand.
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) + sizeof(Z_T) == 6 ? 8 : 4;

template <int Width> __device__ __forceinline__ void add_tile(const X_T *x, const Y_T *y, Z_T *z, int cols) {
  float a[SHARE], b[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, a);
  load_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, b);
#pragma unroll
  for (int i = 0; i < SHARE; i++) a[i] += b[i];
  store_share<Width, SHARE>(z, threadIdx.x, blockDim.x, cols, a);
}

extern "C" __global__ void __launch_bounds__(256)
add(const X_T *x, const Y_T *y, Z_T *z, int64_t stride_x, int64_t stride_y, int64_t stride_z, int64_t cols, int tiles) {
  int64_t row = blockIdx.x / tiles, first = (int64_t)(blockIdx.x % tiles) * blockDim.x * SHARE;
  int rest = (int)min(cols - first, (int64_t)blockDim.x * SHARE);
  x += row * stride_x + first, y += row * stride_y + first, z += row * stride_z + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(y, stride_y) && aligned<WIDE>(z, stride_z))
    add_tile<WIDE>(x, y, z, rest);
  else
    add_tile<1>(x, y, z, rest);
}
