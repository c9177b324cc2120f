// y = silu(gate) * up from the products' results, and the gradient, all in one type: tensors [rows
// cols] with their own row strides. A block handles SHARE elements per thread of one row, and
// `tiles` blocks handle a row. Outputs may be inputs: a thread reads everything that it overwrites
// first.

constexpr int SHARE = 8;

template <int Width> __device__ __forceinline__ void gate_tile(const Y_T *gate, const Y_T *up, Y_T *y, int cols) {
  float g[SHARE], u[SHARE];
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(up, threadIdx.x, blockDim.x, cols, u);
#pragma unroll
  for (int i = 0; i < SHARE; i++) g[i] = swiglu_of(g[i], u[i]);
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, g);
}

extern "C" __global__ void __launch_bounds__(256)
linear_swiglu_gate(const Y_T *gate, int64_t stride_gate, const Y_T *up, int64_t stride_up, Y_T *y, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  gate += row * stride_gate + first, up += row * stride_up + first, y += row * stride_y + first;
  if (widest<4>(cols, gate, stride_gate) == 4 && widest<4>(cols, up, stride_up) == 4 && widest<4>(cols, y, stride_y) == 4)
    gate_tile<4>(gate, up, y, cols - first);
  else
    gate_tile<1>(gate, up, y, cols - first);
}

extern "C" __global__ void __launch_bounds__(256)
linear_swiglu_backward_gate(const Y_T *gate, int64_t stride_gate, const Y_T *up, int64_t stride_up, const Y_T *dy, int64_t stride_dy, Y_T *dgate,
                            int64_t stride_dgate, Y_T *dup, int64_t stride_dup, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  gate += row * stride_gate + first, up += row * stride_up + first, dy += row * stride_dy + first;
  dgate += row * stride_dgate + first, dup += row * stride_dup + first;
  float g[SHARE], u[SHARE], d[SHARE];
  load_share<1, SHARE>(gate, threadIdx.x, blockDim.x, cols - first, g);
  load_share<1, SHARE>(up, threadIdx.x, blockDim.x, cols - first, u);
  load_share<1, SHARE>(dy, threadIdx.x, blockDim.x, cols - first, d);
#pragma unroll
  for (int i = 0; i < SHARE; i++) swiglu_grad(g[i], u[i], d[i], g[i], u[i]);
  store_share<1, SHARE>(dgate, threadIdx.x, blockDim.x, cols - first, g);
  store_share<1, SHARE>(dup, threadIdx.x, blockDim.x, cols - first, u);
}
