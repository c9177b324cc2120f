// y[h c] = x[c] scale[h c] + offset[h c], and its gradient. HEADS is H. A block handles 32 columns
// c, and each of its 8 warps every 8th of its rows.

#ifdef Y_T
extern "C" __global__ void __launch_bounds__(256)
offset_scale(const X_T *x, const float *scale, const float *offset, Y_T *y, int64_t stride_x, int64_t stride_y, int rows, int cols,
             int rows_per_block) {
  int c = blockIdx.x * WARP + threadIdx.x % WARP;
  int first = blockIdx.y * rows_per_block, last = min(first + rows_per_block, rows);
  if (c >= cols) return;
  for (int row = first + threadIdx.x / WARP; row < last; row += 8) {
    float v = load(x + row * stride_x + c);
#pragma unroll
    for (int h = 0; h < HEADS; h++) store(y + row * stride_y + h * cols + c, v * scale[h * cols + c] + offset[h * cols + c]);
  }
}
#endif

#ifdef DX_T
// A block stores its partial dscale [H D] and then doffset [H D] in partials[blockIdx.y]. dx may be
// x itself: a thread reads what it overwrites first.
extern "C" __global__ void __launch_bounds__(256)
offset_scale_backward(const X_T *x, const float *scale, const DY_T *dy, DX_T *dx, float *partials, int64_t stride_x, int64_t stride_dy,
                      int64_t stride_dx, int rows, int cols, int rows_per_block) {
  __shared__ float shared[256];
  int c = blockIdx.x * WARP + threadIdx.x % WARP;
  int first = blockIdx.y * rows_per_block, last = min(first + rows_per_block, rows);
  float dscale[HEADS] = {}, doffset[HEADS] = {};
  if (c < cols) {
    for (int row = first + threadIdx.x / WARP; row < last; row += 8) {
      float v = load(x + row * stride_x + c), sum = 0.f;
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
        float d = load(dy + row * stride_dy + h * cols + c);
        sum += d * scale[h * cols + c], dscale[h] += d * v, doffset[h] += d;
      }
      store(dx + row * stride_dx + c, sum);
    }
  }
  float *part = partials + (int64_t)blockIdx.y * 2 * HEADS * cols;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    dscale[h] = warps_sum(dscale[h], shared), doffset[h] = warps_sum(doffset[h], shared);
    if (threadIdx.x < WARP && c < cols) part[h * cols + c] = dscale[h], part[(HEADS + h) * cols + c] = doffset[h];
  }
}

// offset_scale_sum adds the partial sums of one of the two: partials points to the first, and they
// are `stride` apart.
extern "C" __global__ void __launch_bounds__(256)
offset_scale_sum(const float *partials, float *sum, int parts, int stride, int size) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float x = 0.f;
  for (int p = 0; p < parts; p++) x += partials[(int64_t)p * stride + i];
  sum[i] = x;
}
#endif
