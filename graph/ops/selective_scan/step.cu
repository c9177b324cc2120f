// One token of each row, as in decoding. A warp handles 32 channels; each of a block's GROUPS warps
// handles a part of their states.
// Macros: N; GROUPS, a divisor of N; GATED and the types, as in forward.cu. Grid: channels, rows.
// With RANK the kernel computes dt itself, from r [rows RANK] and w [channels RANK]: LANES lanes of
// a warp share a channel, WIDTH elements at a time.
#ifdef RANK
#define PROJECTION , const R_T *r, const W_T *w, int64_t r_stride, int64_t w_stride
#else
#define PROJECTION
#endif
extern "C" __global__ void __launch_bounds__(WARP *GROUPS)
selective_scan_step(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c, const float *d,
                    const Z_T *z, float *state, Y_T *y, int channels, int64_t u_stride, int64_t dt_stride, int64_t b_stride,
                    int64_t c_stride, int64_t z_stride, int64_t y_stride PROJECTION) {
  constexpr int OWN = N / GROUPS;
  int lane = threadIdx.x % WARP, group = threadIdx.x / WARP, first = group * OWN, i = blockIdx.x * WARP + lane;
  int64_t row = blockIdx.y;
  bool own = i < channels;
  float rate[OWN], before[OWN], sum = 0.f;
  let_next_begin();
#pragma unroll
  for (int n = 0; n < OWN; n++) rate[n] = own ? expf(a_log[(int64_t)i * N + first + n]) : 0.f;
  float bias = own ? dt_bias[i] : 0.f, skip = own ? d[i] : 0.f;
  // No preceding kernel writes the states.
  state += (row * N + first) * channels + i;
#pragma unroll
  for (int n = 0; n < OWN; n++) before[n] = own ? state[(int64_t)n * channels] : 0.f;
#ifdef RANK
  constexpr int SIDE = WARP / LANES, PASSES = WARP / GROUPS / SIDE, VECTORS = (RANK / WIDTH + LANES - 1) / LANES;
  __shared__ float steps[WARP];
  int side = lane / LANES, at = lane % LANES * WIDTH, from = group * (WARP / GROUPS);
  float weights[PASSES][VECTORS][WIDTH], factors[VECTORS][WIDTH];
#pragma unroll
  for (int p = 0; p < PASSES; p++) {
    int c = min(blockIdx.x * WARP + from + p * SIDE + side, channels - 1);
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
      if (int k = v * LANES * WIDTH + at; k < RANK) load_vector<WIDTH>(w + c * w_stride + k, weights[p][v]);
  }
#endif
  wait_for_inputs();
  float x = own ? to_float(u[row * u_stride + i]) : 0.f, in[OWN], out[OWN];
#pragma unroll
  for (int n = 0; n < OWN; n++) in[n] = to_float(b[row * b_stride + first + n]), out[n] = to_float(c[row * c_stride + first + n]);
#ifdef GATED
  float gate = own ? to_float(z[row * z_stride + i]) : 0.f;
#endif
#ifdef RANK
#pragma unroll
  for (int v = 0; v < VECTORS; v++)
    if (int k = v * LANES * WIDTH + at; k < RANK) load_vector<WIDTH>(r + row * r_stride + k, factors[v]);
#pragma unroll
  for (int p = 0; p < PASSES; p++) {
    float step = 0.f;
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
      if (v * LANES * WIDTH + at < RANK)
#pragma unroll
        for (int e = 0; e < WIDTH; e++) step += factors[v][e] * weights[p][v][e];
#pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) step += __shfl_xor_sync(FULL, step, d);
    if (lane % LANES == 0) steps[from + p * SIDE + side] = step;
  }
  __syncthreads();
#endif
  if (own) {
#ifdef RANK
    float raw = steps[lane] + bias;
#else
    float raw = to_float(dt[row * dt_stride + i]) + bias;
#endif
    float delta = raw > 20.f ? raw : log1pf(expf(raw));
    if (group == 0) sum = skip * x;
#pragma unroll
    for (int n = 0; n < OWN; n++) {
      float after = expf(-delta * rate[n]) * before[n] + delta * in[n] * x;
      state[(int64_t)n * channels] = after;
      sum += out[n] * after;
    }
  }
  __shared__ float sums[GROUPS][WARP];
  sums[group][lane] = sum;
  __syncthreads();
  if (group > 0 || !own) return;
  for (int g = 1; g < GROUPS; g++) sum += sums[g][lane];
#ifdef GATED
  sum *= gate / (1.f + expf(-gate));
#endif
  store(y + row * y_stride + i, sum);
}
