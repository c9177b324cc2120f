// One token of each row, as in decoding: a thread has a channel and all its states.
// Macros: N, GATED and the types, as in selective_scan.cu. Grid: channels, rows.
extern "C" __global__ void __launch_bounds__(128)
selective_scan_step(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c, const float *d,
                    const Z_T *z, float *state, Y_T *y, int channels, int64_t u_stride, int64_t dt_stride, int64_t b_stride,
                    int64_t c_stride, int64_t z_stride, int64_t y_stride) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int64_t row = blockIdx.y;
  bool own = i < channels;
  float rate[N], before[N];
#pragma unroll
  for (int n = 0; n < N; n++) rate[n] = own ? expf(a_log[(int64_t)i * N + n]) : 0.f;
  if (!own) return;
  state += row * N * channels + i;
#pragma unroll
  for (int n = 0; n < N; n++) before[n] = state[(int64_t)n * channels];
  float x = to_float(u[row * u_stride + i]), raw = to_float(dt[row * dt_stride + i]) + dt_bias[i];
  float delta = raw > 20.f ? raw : log1pf(expf(raw)), sum = d[i] * x;
#pragma unroll
  for (int n = 0; n < N; n++) {
    float after = expf(-delta * rate[n]) * before[n] + delta * to_float(b[row * b_stride + n]) * x;
    state[(int64_t)n * channels] = after;
    sum += to_float(c[row * c_stride + n]) * after;
  }
#ifdef GATED
  float gate = to_float(z[row * z_stride + i]);
  sum *= gate / (1.f + expf(-gate));
#endif
  store(y + row * y_stride + i, sum);
}
