// Log decays and their gradient, element-wise.

#ifdef G_T
// A block handles SHARE elements per thread of one row, and `tiles` blocks handle a row. g may be x
// itself: a thread reads everything that it overwrites first.
constexpr int SHARE = 8;
constexpr int WIDE = sizeof(X_T) + sizeof(G_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width>
__device__ __forceinline__ void forward_tile(const X_T *x, const float *bias, G_T *g, int cols, float normalizer) {
  float v[SHARE], b[SHARE];
  load_share<Width, SHARE>(x, threadIdx.x, blockDim.x, cols, v);
  load_share<Width, SHARE>(bias, threadIdx.x, blockDim.x, cols, b);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] = -softplus(-(v[i] + b[i])) / normalizer;
  store_share<Width, SHARE>(g, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
log_gate(const X_T *x, const float *bias, G_T *g, int64_t stride_x, int64_t stride_g, int cols, int tiles, float normalizer) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  x += row * stride_x + first, bias += first, g += row * stride_g + first;
  if (cols % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(bias, 0) && aligned<WIDE>(g, stride_g))
    forward_tile<WIDE>(x, bias, g, cols - first, normalizer);
  else
    forward_tile<1>(x, bias, g, cols - first, normalizer);
}
#endif

#ifdef DX_T
constexpr int WARPS = 8;

// A thread handles 4 columns, or 1, and a warp every WARPS-th row of a block. The block stores the
// sum of their dx in partials[blockIdx.y].
template <int Width>
__device__ __forceinline__ void backward_rows(const X_T *x, const float *bias, const DG_T *dg, DX_T *dx, float *partials, int64_t stride_x,
                                              int64_t stride_dg, int64_t stride_dx, int rows, int cols, int rows_per_block, float normalizer) {
  __shared__ float sums[WARPS][WARP * Width];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = (blockIdx.x * WARP + lane) * Width;
  int first = blockIdx.y * rows_per_block, last = min(first + rows_per_block, rows);
  float sum[Width] = {}, b[Width];
  if (j < cols) {
    load_vector<Width>(bias + j, b);
    for (int row = first + warp; row < last; row += WARPS) {
      float v[Width], d[Width];
      load_vector<Width>(x + row * stride_x + j, v), load_vector<Width>(dg + row * stride_dg + j, d);
#pragma unroll
      for (int i = 0; i < Width; i++) d[i] *= sigmoid(-(v[i] + b[i])) / normalizer, sum[i] += d[i];
      store_vector<Width>(dx + row * stride_dx + j, d);
    }
  }
#pragma unroll
  for (int i = 0; i < Width; i++) sums[warp][i * WARP + lane] = sum[i];
  __syncthreads();
  if (warp > 0 || j >= cols) return;
#pragma unroll
  for (int i = 0; i < Width; i++) {
    for (int w = 1; w < WARPS; w++) sum[i] += sums[w][i * WARP + lane];
    partials[(int64_t)blockIdx.y * cols + j + i] = sum[i];
  }
}

// A block has WARP or 4 * WARP columns; the grid was computed for that.
extern "C" __global__ void __launch_bounds__(WARPS *WARP)
log_gate_backward(const X_T *x, const float *bias, const DG_T *dg, DX_T *dx, float *partials, int64_t stride_x, int64_t stride_dg,
                  int64_t stride_dx, int rows, int cols, int rows_per_block, float normalizer) {
  backward_rows<WIDTH>(x, bias, dg, dx, partials, stride_x, stride_dg, stride_dx, rows, cols, rows_per_block, normalizer);
}

// log_gate_dbias adds the blocks' partial sums of 32 columns: each warp adds every 32nd, and then
// the warps' sums are added in order.
extern "C" __global__ void __launch_bounds__(1024) log_gate_dbias(const float *partials, float *dbias, int parts, int cols) {
  __shared__ float sums[32][WARP];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = blockIdx.x * WARP + lane;
  float sum = 0.f;
  if (j < cols)
    for (int i = warp; i < parts; i += 32) sum += partials[(int64_t)i * cols + j];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= cols) return;
  for (int i = 1; i < 32; i++) sum += sums[i][lane];
  dbias[j] = sum;
}
#endif
