// One token of each of many rows, as in decoding, with the time steps computed here: dt = r w' on
// tensor cores, r [rows RANK], w [channels RANK]. A block has 32 channels of ROWS rows, a warp has
// those of one row, and a thread has all states of one channel. Blocks are few and small, so that
// those of the next kernel start, and fetch weights, while these run.
//
// Macros: N, GATED and the types, as in forward.cu; ROWS, 16 at most; RANK, a multiple of 8. Grid:
// channels, rows.

constexpr int TILE = 8, TILES = WARP / TILE;               // channels of an mma
constexpr int PART = 32, PARTS = (RANK + PART - 1) / PART; // of RANK: what a warp multiplies at a time
constexpr int JOBS = (TILES * PARTS + ROWS - 1) / ROWS;
constexpr int THREADS = WARP * ROWS;

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
selective_scan_step_rows(const U_T *u, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c, const float *d,
                         const Z_T *z, float *state, Y_T *y, const bf16 *r, const bf16 *w, int rows, int channels, int64_t u_stride,
                         int64_t b_stride, int64_t c_stride, int64_t z_stride, int64_t y_stride, int64_t r_stride, int64_t w_stride) {
  __shared__ __align__(8) float steps[PARTS][16][WARP];
  __shared__ float rates[N][WARP + 1], factors[2][ROWS][N];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, i = blockIdx.x * WARP + lane, first = blockIdx.y * ROWS, row = first + warp;
  bool own = i < channels && row < rows;
  let_next_begin();
  // No preceding kernel writes the states.
  state += (int64_t)row * N * channels + i;
  float before[N];
#pragma unroll
  for (int n = 0; n < N; n++) before[n] = own ? state[(int64_t)n * channels] : 0.f;
  uint4 weights[JOBS];
#pragma unroll
  for (int j = 0; j < JOBS; j++) {
    int job = warp + j * ROWS, channel = min(blockIdx.x * WARP + job % TILES * TILE + lane / 4, channels - 1);
    int k = job / TILES * PART + lane % 4 * 8;
    weights[j] = make_uint4(0, 0, 0, 0);
    if (job < TILES * PARTS && k < RANK) weights[j] = *(const uint4 *)(w + channel * w_stride + k);
  }
  float bias = own ? dt_bias[i] : 0.f, skip = own ? d[i] : 0.f;
  for (int e = threadIdx.x; e < N * WARP; e += THREADS) {
    int channel = blockIdx.x * WARP + e / N;
    rates[e % N][e / N] = channel < channels ? -LOG2E * expf(a_log[(int64_t)channel * N + e % N]) : 0.f;
  }
  wait_for_inputs();

  float x = own ? to_float(u[row * u_stride + i]) : 0.f;
#ifdef GATED
  float gate = own ? to_float(z[row * z_stride + i]) : 0.f;
#endif
  uint4 upper[JOBS], lower[JOBS];
#pragma unroll
  for (int j = 0; j < JOBS; j++) {
    int job = warp + j * ROWS, top = first + lane / 4, k = job / TILES * PART + lane % 4 * 8;
    const bf16 *from = r + top * r_stride + k;
    upper[j] = lower[j] = make_uint4(0, 0, 0, 0);
    if (job >= TILES * PARTS || k >= RANK) continue;
    if (top < rows) upper[j] = *(const uint4 *)from;
    if (ROWS > 8 && top + 8 < rows) lower[j] = *(const uint4 *)(from + 8 * r_stride);
  }
  if (row < rows)
    for (int n = lane; n < N; n += WARP) {
      factors[0][warp][n] = to_float(b[row * b_stride + n]);
      factors[1][warp][n] = to_float(c[row * c_stride + n]);
    }
#pragma unroll
  for (int j = 0; j < JOBS; j++) {
    int job = warp + j * ROWS;
    if (job >= TILES * PARTS) break;
    // The assignment of k to positions in an mma is arbitrary as long as A and B agree.
    const uint32_t a0[4] = {upper[j].x, lower[j].x, upper[j].y, lower[j].y}, a1[4] = {upper[j].z, lower[j].z, upper[j].w, lower[j].w};
    const uint32_t b0[2] = {weights[j].x, weights[j].y}, b1[2] = {weights[j].z, weights[j].w};
    float sum[4] = {};
    mma_16x8x16(sum, a0, b0);
    mma_16x8x16(sum, a1, b1);
    float *to = &steps[job / TILES][lane / 4][job % TILES * TILE + lane % 4 * 2];
    *(float2 *)to = make_float2(sum[0], sum[1]);
    *(float2 *)(to + 8 * WARP) = make_float2(sum[2], sum[3]);
  }
  __syncthreads();
  if (!own) return;
  float raw = bias;
#pragma unroll
  for (int p = 0; p < PARTS; p++) raw += steps[p][warp][lane];
  float delta = raw > 20.f ? raw : log1pf(expf(raw)), dx = delta * x, sum = skip * x;
#pragma unroll
  for (int n = 0; n < N; n++) {
    float after = exp2f(delta * rates[n][lane]) * before[n] + dx * factors[0][warp][n];
    state[(int64_t)n * channels] = after;
    sum += factors[1][warp][n] * after;
  }
#ifdef GATED
  sum *= gate / (1.f + expf(-gate));
#endif
  store(y + row * y_stride + i, sum);
}
