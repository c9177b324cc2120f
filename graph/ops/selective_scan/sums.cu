// selective_scan_sum_slices adds up slices [n][tokens][2][N] into dBm and dCm.
extern "C" __global__ void selective_scan_sum_slices(const SLICE_T *slices, DB_T *db, DC_T *dc, int n, int tokens,
                                                     int db_stride, int dc_stride) {
#if N % 4 == 0
  const int width = 4;
#else
  const int width = 1;
#endif
  int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * width, size = (int64_t)tokens * 2 * N;
  if (i >= size) return;
  float sum[width] = {};
#pragma unroll 8
  for (int s = 0; s < n; s++) {
    float x[width];
#if N % 4 == 0
    load4(slices + s * size + i, x);
#else
    x[0] = load(slices + s * size + i);
#endif
#pragma unroll
    for (int k = 0; k < width; k++) sum[k] += x[k];
  }
  int64_t t = i / (2 * N);
  int at = i % (2 * N);
#pragma unroll
  for (int k = 0; k < width; k++) {
    if (at < N) store(db + t * db_stride + at + k, sum[k]);
    else store(dc + t * dc_stride + at - N + k, sum[k]);
  }
}

// selective_scan_sum_rows adds up rows [n][N+2][C] into dA_log, ddt_bias and dD.
extern "C" __global__ void selective_scan_sum_rows(const float *rows, float *da_log, float *ddt_bias, float *dd, int n,
                                                   int channels) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, size = (N + 2) * channels;
  if (i >= size) return;
  float sum = 0.f;
#pragma unroll 4
  for (int r = 0; r < n; r++) sum += rows[(int64_t)r * size + i];
  int state = i / channels, c = i % channels;
  if (state < N) da_log[(int64_t)c * N + state] = sum;
  else if (state == N) ddt_bias[c] = sum;
  else dd[c] = sum;
}
