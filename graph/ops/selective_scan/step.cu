// One token of each row, as in decoding: a warp has 32 channels, and each of a block's GROUPS
// warps a part of their states.
// Macros: N, GROUPS, a divisor of it, GATED and the types, as in forward.cu. Grid: channels, rows.
extern "C" __global__ void __launch_bounds__(WARP *GROUPS)
selective_scan_step(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c, const float *d,
                    const Z_T *z, float *state, Y_T *y, int channels, int64_t u_stride, int64_t dt_stride, int64_t b_stride,
                    int64_t c_stride, int64_t z_stride, int64_t y_stride) {
  constexpr int OWN = N / GROUPS;
  int lane = threadIdx.x % WARP, group = threadIdx.x / WARP, first = group * OWN, i = blockIdx.x * WARP + lane;
  int64_t row = blockIdx.y;
  bool own = i < channels;
  float rate[OWN], before[OWN], sum = 0.f;
  let_next_begin();
#pragma unroll
  for (int n = 0; n < OWN; n++) rate[n] = own ? expf(a_log[(int64_t)i * N + first + n]) : 0.f;
  float bias = own ? dt_bias[i] : 0.f, skip = own ? d[i] : 0.f;
  wait_for_inputs();
  if (own) {
    state += (row * N + first) * channels + i;
#pragma unroll
    for (int n = 0; n < OWN; n++) before[n] = state[(int64_t)n * channels];
    float x = to_float(u[row * u_stride + i]), raw = to_float(dt[row * dt_stride + i]) + bias;
    float delta = raw > 20.f ? raw : log1pf(expf(raw));
    if (group == 0) sum = skip * x;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
      float after = expf(-delta * rate[n]) * before[n] + delta * to_float(b[row * b_stride + first + n]) * x;
      state[(int64_t)n * channels] = after;
      sum += to_float(c[row * c_stride + first + n]) * after;
    }
  }
  __shared__ float sums[GROUPS][WARP];
  sums[group][lane] = sum;
  __syncthreads();
  if (group > 0 || !own) return;
  for (int g = 1; g < GROUPS; g++) sum += sums[g][lane];
#ifdef GATED
  float gate = to_float(z[row * z_stride + i]);
  sum *= gate / (1.f + expf(-gate));
#endif
  store(y + row * y_stride + i, sum);
}
