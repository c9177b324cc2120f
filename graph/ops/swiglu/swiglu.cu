// y = silu(gate) * up, and its gradient. A block handles SHARE elements per thread of one row, and
// `tiles` blocks handle a row. Outputs may be inputs themselves: a thread reads everything that it
// overwrites first.

constexpr int SHARE = 8;

#ifdef Y_T
constexpr int WIDE = sizeof(GATE_T) + sizeof(UP_T) + sizeof(Y_T) == 6 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_tile(const GATE_T *gate, const UP_T *up, Y_T *y, int cols) {
  float g[SHARE], u[SHARE];
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(up, threadIdx.x, blockDim.x, cols, u);
#pragma unroll
  for (int i = 0; i < SHARE; i++) g[i] = swiglu_of(g[i], u[i]);
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, g);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu(const GATE_T *gate, const UP_T *up, Y_T *y, int64_t stride_gate, int64_t stride_up, int64_t stride_y, int cols, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  gate += row * stride_gate + first, up += row * stride_up + first, y += row * stride_y + first;
  int width = min(widest<WIDE>(cols, gate, stride_gate), min(widest<WIDE>(cols, up, stride_up), widest<WIDE>(cols, y, stride_y)));
  if (width == WIDE)
    forward_tile<WIDE>(gate, up, y, cols - first);
  else if (width == 4)
    forward_tile<4>(gate, up, y, cols - first);
  else
    forward_tile<1>(gate, up, y, cols - first);
}
#endif

#ifdef DY_T
// With AGAIN_T, y is also written.
#ifdef AGAIN_T
#define Y_PARAMETERS , AGAIN_T *y, int64_t stride_y
#define Y_TILE_PARAMETER , AGAIN_T *y
#define Y_ARGUMENT , y
constexpr int Y_SIZE = sizeof(AGAIN_T);
#else
#define Y_PARAMETERS
#define Y_TILE_PARAMETER
#define Y_ARGUMENT
constexpr int Y_SIZE = 2;
#endif
constexpr int WIDE = sizeof(GATE_T) + sizeof(UP_T) + sizeof(DY_T) + sizeof(DGATE_T) + sizeof(DUP_T) + Y_SIZE == 12 ? 8 : 4;

template <int Width>
__device__ __forceinline__ void backward_tile(const GATE_T *gate, const UP_T *up, const DY_T *dy, DGATE_T *dgate, DUP_T *dup, int cols Y_TILE_PARAMETER) {
  float g[SHARE], u[SHARE], d[SHARE];
  load_share<Width, SHARE>(gate, threadIdx.x, blockDim.x, cols, g);
  load_share<Width, SHARE>(up, threadIdx.x, blockDim.x, cols, u);
  load_share<Width, SHARE>(dy, threadIdx.x, blockDim.x, cols, d);
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    float y = swiglu_of(g[i], u[i]);
    swiglu_grad(g[i], u[i], d[i], g[i], u[i]);
    d[i] = y;
  }
#ifdef AGAIN_T
  store_share<Width, SHARE>(y, threadIdx.x, blockDim.x, cols, d);
#endif
  store_share<Width, SHARE>(dgate, threadIdx.x, blockDim.x, cols, g);
  store_share<Width, SHARE>(dup, threadIdx.x, blockDim.x, cols, u);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_backward(const GATE_T *gate, const UP_T *up, const DY_T *dy, DGATE_T *dgate, DUP_T *dup, int64_t stride_gate, int64_t stride_up,
                int64_t stride_dy, int64_t stride_dgate, int64_t stride_dup, int cols, int tiles Y_PARAMETERS) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  gate += row * stride_gate + first, up += row * stride_up + first, dy += row * stride_dy + first;
  dgate += row * stride_dgate + first, dup += row * stride_dup + first;
  int width = min(widest<WIDE>(cols, gate, stride_gate), min(widest<WIDE>(cols, up, stride_up), widest<WIDE>(cols, dy, stride_dy)));
  width = min(width, min(widest<WIDE>(cols, dgate, stride_dgate), widest<WIDE>(cols, dup, stride_dup)));
#ifdef AGAIN_T
  y += row * stride_y + first;
  width = min(width, widest<WIDE>(cols, y, stride_y));
#endif
  if (width == WIDE)
    backward_tile<WIDE>(gate, up, dy, dgate, dup, cols - first Y_ARGUMENT);
  else if (width == 4)
    backward_tile<4>(gate, up, dy, dgate, dup, cols - first Y_ARGUMENT);
  else
    backward_tile<1>(gate, up, dy, dgate, dup, cols - first Y_ARGUMENT);
}
#endif
