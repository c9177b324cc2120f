// y = x + sigmoid(gate) (silu(h) - x), and its gradient. A block handles SHARE elements per thread
// of one row, and `tiles` blocks handle a row. Output 0 may be an input itself: a thread reads
// everything that it overwrites first.

constexpr int SHARE = 8;

#ifdef Y_T
constexpr int WIDE = sizeof(X_T) + sizeof(GATE_T) + sizeof(H_T) + sizeof(Y_T) == 8 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_tile(const X_T *x, const GATE_T *gate, const H_T *h, Y_T *y, int cols) {
  float v[SHARE], g[SHARE], u[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(h, threadIdx.x, blockDim.x, cols, u);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] += sigmoid(g[i]) * (silu(u[i]) - v[i]);
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
gated_update(const X_T *x, const GATE_T *gate, const H_T *h, Y_T *y, int64_t stride_x, int64_t stride_gate, int64_t stride_h,
             int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, gate += row * stride_gate + first, h += row * stride_h + first, y += row * stride_y + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(gate, stride_gate) && aligned<WIDE>(h, stride_h) &&
      aligned<WIDE>(y, stride_y))
    forward_tile<WIDE>(x, gate, h, y, cols - first);
  else
    forward_tile<1>(x, gate, h, y, cols - first);
}
#endif

#ifdef DY_T
constexpr int WIDE = sizeof(X_T) + sizeof(GATE_T) + sizeof(H_T) + sizeof(DY_T) + sizeof(DX_T) + sizeof(DGATE_T) + sizeof(DH_T) == 14 ? 8 : 4;

template <int Width>
__device__ __forceinline__ void backward_tile(const X_T *x, const GATE_T *gate, const H_T *h, const DY_T *dy, DX_T *dx, DGATE_T *dgate,
                                              DH_T *dh, int cols) {
  float v[SHARE], g[SHARE], u[SHARE], d[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(h, threadIdx.x, blockDim.x, cols, u);
  load_share<Width, SHARE>(dy, threadIdx.x, blockDim.x, cols, d);
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    // 1 - s computed as the sigmoid of -gate; the difference would cancel.
    float s = sigmoid(g[i]), rest = sigmoid(-g[i]);
    g[i] = d[i] * (silu(u[i]) - v[i]) * s * rest;
    u[i] = d[i] * s * silu_grad(u[i]);
    v[i] = d[i] * rest;
  }
  store_share<Width, SHARE>(dx, threadIdx.x, blockDim.x, cols, v);
  store_share<Width, SHARE>(dgate, threadIdx.x, blockDim.x, cols, g);
  store_share<Width, SHARE>(dh, threadIdx.x, blockDim.x, cols, u);
}

extern "C" __global__ void __launch_bounds__(256)
gated_update_backward(const X_T *x, const GATE_T *gate, const H_T *h, const DY_T *dy, DX_T *dx, DGATE_T *dgate, DH_T *dh,
                      int64_t stride_x, int64_t stride_gate, int64_t stride_h, int64_t stride_dy, int64_t stride_dx,
                      int64_t stride_dgate, int64_t stride_dh, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, gate += row * stride_gate + first, h += row * stride_h + first, dy += row * stride_dy + first;
  dx += row * stride_dx + first, dgate += row * stride_dgate + first, dh += row * stride_dh + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(gate, stride_gate) && aligned<WIDE>(h, stride_h) &&
      aligned<WIDE>(dy, stride_dy) && aligned<WIDE>(dx, stride_dx) && aligned<WIDE>(dgate, stride_dgate) && aligned<WIDE>(dh, stride_dh))
    backward_tile<WIDE>(x, gate, h, dy, dx, dgate, dh, cols - first);
  else
    backward_tile<1>(x, gate, h, dy, dx, dgate, dh, cols - first);
}
#endif
