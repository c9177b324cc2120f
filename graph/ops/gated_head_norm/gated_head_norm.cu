// y = x rstd w silu(gate) in each head of D channels, and its gradient. A warp holds a head of a
// row in registers, so that x is read once; everything that is overwritten has been read before.

constexpr int SHARE = (D + WARP * 8 - 1) / (WARP * 8) * 8; // elements of a head per thread

#ifdef Y_T
constexpr int WIDE = sizeof(X_T) + sizeof(GATE_T) + sizeof(Y_T) == 6 ? 8 : 4; // 16 bytes of the widest operand

template <int Width>
__device__ __forceinline__ void forward_head(const X_T *x, const GATE_T *gate, const float *w, Y_T *y, float *rstd, float eps) {
  int lane = threadIdx.x % WARP;
  float v[SHARE], g[SHARE], weight[SHARE], sum = 0.f;
  load_share<Width, SHARE>(x, lane, WARP, D, v);
  load_share<Width, SHARE>(gate, lane, WARP, D, g);
  load_share<Width, SHARE>(w, lane, WARP, D, weight);
#pragma unroll
  for (int i = 0; i < SHARE; i++) sum += v[i] * v[i];
  float r = rsqrtf(warp_sum(sum) * (1.f / D) + eps);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] *= r * weight[i] * silu(g[i]);
  store_share<Width, SHARE>(y, lane, WARP, D, v);
  if (lane == 0) *rstd = r;
}

extern "C" __global__ void __launch_bounds__(256)
gated_head_norm(const X_T *x, const GATE_T *gate, const float *w, Y_T *y, float *rstd, int64_t stride_x, int64_t stride_gate,
                int64_t stride_y, int64_t stride_rstd, int rows, int heads, float eps) {
  int64_t at = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, row = at / heads, head = at % heads;
  if (row >= rows) return;
  x += row * stride_x + head * D, gate += row * stride_gate + head * D, y += row * stride_y + head * D;
  rstd += row * stride_rstd + head;
  if (D % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(gate, stride_gate) && aligned<WIDE>(w, 0) && aligned<WIDE>(y, stride_y))
    forward_head<WIDE>(x, gate, w, y, rstd, eps);
  else
    forward_head<1>(x, gate, w, y, rstd, eps);
}
#endif

#ifdef DX_T
constexpr int WIDE = sizeof(X_T) + sizeof(GATE_T) + sizeof(DY_T) + sizeof(DX_T) + sizeof(DGATE_T) == 10 ? 8 : 4;
constexpr int WARPS = 8;

// A warp handles every n-th head of the rows, and a block stores its partial dw in
// partials[blockIdx].
template <int Width>
__device__ __forceinline__ void backward_heads(const X_T *x, const GATE_T *gate, const float *w, const float *rstd, const DY_T *dy, DX_T *dx,
                                               DGATE_T *dgate, float *partials, int64_t stride_x, int64_t stride_gate, int64_t stride_rstd,
                                               int64_t stride_dy, int64_t stride_dx, int64_t stride_dgate, int rows, int heads) {
  __shared__ __align__(16) float other[D];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  float weight[SHARE], dw[SHARE] = {}, v[SHARE], g[SHARE], d[SHARE];
  load_share<Width, SHARE>(w, lane, WARP, D, weight);
  for (int64_t at = (int64_t)blockIdx.x * WARPS + warp; at < (int64_t)rows * heads; at += (int64_t)gridDim.x * WARPS) {
    int64_t row = at / heads, column = at % heads * D;
    load_share<Width, SHARE>(x + row * stride_x + column, lane, WARP, D, v);
    load_share<Width, SHARE>(gate + row * stride_gate + column, lane, WARP, D, g);
    load_share<Width, SHARE>(dy + row * stride_dy + column, lane, WARP, D, d);
    float r = rstd[row * stride_rstd + at % heads], dot = 0.f;
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      float s = sigmoid(g[i]), norm = v[i] * r, dn = d[i] * g[i] * s;
      g[i] = d[i] * norm * weight[i] * (s + g[i] * s * (1.f - s));
      dw[i] += dn * norm;
      d[i] = weight[i] * dn;
      dot += d[i] * v[i];
    }
    store_share<Width, SHARE>(dgate + row * stride_dgate + column, lane, WARP, D, g);
    dot = warp_sum(dot) * (r * r / D);
#pragma unroll
    for (int i = 0; i < SHARE; i++) d[i] = r * (d[i] - v[i] * dot);
    store_share<Width, SHARE>(dx + row * stride_dx + column, lane, WARP, D, d);
  }
  for (int k = 1; k < WARPS; k++) {
    __syncthreads();
    if (warp == k) store_share<Width, SHARE>(other, lane, WARP, D, dw);
    __syncthreads();
    if (warp == 0) {
      load_share<Width, SHARE>(other, lane, WARP, D, v);
#pragma unroll
      for (int i = 0; i < SHARE; i++) dw[i] += v[i];
    }
  }
  if (warp == 0) store_share<Width, SHARE>(partials + (int64_t)blockIdx.x * D, lane, WARP, D, dw);
}

extern "C" __global__ void __launch_bounds__(WARPS *WARP)
gated_head_norm_backward(const X_T *x, const GATE_T *gate, const float *w, const float *rstd, const DY_T *dy, DX_T *dx, DGATE_T *dgate,
                         float *partials, int64_t stride_x, int64_t stride_gate, int64_t stride_rstd, int64_t stride_dy, int64_t stride_dx,
                         int64_t stride_dgate, int rows, int heads) {
  // The same for all threads of a block, since the functions contain barriers.
  if (D % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(gate, stride_gate) && aligned<WIDE>(w, 0) && aligned<WIDE>(dy, stride_dy) &&
      aligned<WIDE>(dx, stride_dx) && aligned<WIDE>(dgate, stride_dgate) && aligned<WIDE>(partials, D))
    backward_heads<WIDE>(x, gate, w, rstd, dy, dx, dgate, partials, stride_x, stride_gate, stride_rstd, stride_dy, stride_dx, stride_dgate,
                         rows, heads);
  else
    backward_heads<1>(x, gate, w, rstd, dy, dx, dgate, partials, stride_x, stride_gate, stride_rstd, stride_dy, stride_dx, stride_dgate, rows,
                      heads);
}

// gated_head_norm_dw adds the blocks' partial sums of 32 columns: each warp adds every 32nd, and
// then the warps' sums are added in order.
extern "C" __global__ void __launch_bounds__(1024) gated_head_norm_dw(const float *partials, float *dw, int parts) {
  __shared__ float sums[32][WARP];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = blockIdx.x * WARP + lane;
  float sum = 0.f;
  if (j < D)
    for (int i = warp; i < parts; i += 32) sum += partials[(int64_t)i * D + j];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= D) return;
  for (int i = 1; i < 32; i++) sum += sums[i][lane];
  dw[j] = sum;
}
#endif
