// y = silu(gate) * up of what the products made, in y's type: gate and up [rows cols] with rows
// stride apart. A block takes SHARE elements a thread of one row, and `tiles` blocks make a row.

constexpr int SHARE = 8;

template <int Width> __device__ __forceinline__ void gate_tile(const Y_T *gate, const Y_T *up, Y_T *y, int cols) {
  float g[SHARE], u[SHARE];
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(up, threadIdx.x, blockDim.x, cols, u);
#pragma unroll
  for (int i = 0; i < SHARE; i++) g[i] = silu(g[i]) * u[i];
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, g);
}

extern "C" __global__ void __launch_bounds__(256)
linear_swiglu_gate(const Y_T *gate, const Y_T *up, Y_T *y, int64_t stride, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  gate += row * stride + first, up += row * stride + first, y += row * stride_y + first;
  if (widest<4>(cols, gate, stride) == 4 && widest<4>(cols, y, stride_y) == 4)
    gate_tile<4>(gate, up, y, cols - first);
  else
    gate_tile<1>(gate, up, y, cols - first);
}
