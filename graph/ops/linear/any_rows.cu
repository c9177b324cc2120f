// Any types and strides, slowly: each warp computes one element of y.
extern "C" __global__ void __launch_bounds__(THREADS) linear_any_rows(OPERANDS) {
  begin_early();
  int lane = threadIdx.x % WARP;
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (i >= (int64_t)rows * cols) return;
  int row = i / cols, col = i % cols;
  x += row * stride_x;
  float scale = 1.f, sum[2] = {0.f, 0.f};
#ifdef NORM
  float square = 0.f;
  for (int k = lane; k < K; k += WARP) square += load(x + k) * load(x + k);
  scale = rsqrtf(warp_sum(square) / K + epsilon);
#endif
#pragma unroll
  for (int m = 0; m < MATRICES; m++) {
    for (int k = lane; k < K; k += WARP) {
      float h = load(x + k) * scale;
#ifdef NORM
      h *= gain[k];
#endif
      sum[m] += h * load(w + (int64_t)(m * cols + col) * stride_w + k);
    }
    sum[m] = warp_sum(sum[m]);
  }
  if (lane == 0) store(y + row * stride_y + col, RESULT(row, col, finish(sum[0], sum[1], z ? z[row * stride_z + col] : 0.f)));
}
