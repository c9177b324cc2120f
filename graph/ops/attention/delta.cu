// attention_delta computes delta[b, h, t] = do o, and the log-sum-exps in base 2, contiguous for
// each head and padded to whole tiles: beyond T a query has weight exp2(s - inf) = 0, and delta is
// 0. LANES lanes of a warp share one query of one head. The kernel also zeroes the counters that
// the blocks of later kernels share. If base is not 0, it computes the frequencies [HEAD_DIM / 2]
// of a rotation, in turns per token. Afterwards dq may reuse o's memory.
extern "C" __global__ void __launch_bounds__(128)
attention_delta(const O_T *o, const DO_T *dout, const float *lse, float *delta, float *lse2, double *frequencies,
                uint64_t base_bits, int *counts, int zeros, int rows, int tokens, int padded, int heads, int64_t stride_o,
                int64_t stride_lse, int64_t stride_do) {
  int lane = threadIdx.x % LANES;
  for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < zeros; n += (int64_t)gridDim.x * blockDim.x) counts[n] = 0;
  if (base_bits != 0 && blockIdx.x == 0 && threadIdx.x < HEAD_DIM / 2)
    frequencies[threadIdx.x] = pow(__longlong_as_double((int64_t)base_bits), -2. * threadIdx.x / HEAD_DIM) / 6.283185307179586;
  int64_t i = (int64_t)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
  bool there = i < (int64_t)rows * padded * heads;
  int h = i % heads, t = i / heads % padded;
  int64_t b = i / heads / padded, row = b * tokens + t, to = (b * heads + h) * padded + t;
  float sum = 0.f;
  if (there && t < tokens) {
    const O_T *oi = o + row * stride_o + h * HEAD_DIM;
    const DO_T *doi = dout + row * stride_do + h * HEAD_DIM;
    for (int c = lane * WIDTH; c < HEAD_DIM; c += LANES * WIDTH) {
      float x[WIDTH], y[WIDTH];
      load_vector<WIDTH>(oi + c, x), load_vector<WIDTH>(doi + c, y);
#pragma unroll
      for (int k = 0; k < WIDTH; k++) sum += x[k] * y[k];
    }
  }
#pragma unroll
  for (int d = LANES / 2; d > 0; d /= 2) sum += __shfl_xor_sync(FULL, sum, d);
  if (there && lane == 0) {
    delta[to] = sum;
    lse2[to] = t < tokens ? lse[row * stride_lse + h] * LOG2E : INF;
  }
}
