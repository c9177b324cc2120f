// One token per row: computes the recurrence directly. A thread block handles WARP * WIDTH columns of
// a head's state, and each of its warps every WARPS-th row of them. It prefetches the state before
// its inputs are ready, since none of the kernels before this one writes the state.

constexpr int WARPS = 8, THREADS = WARPS * WARP, COLUMNS = WARP * WIDTH;
constexpr int AHEAD = 8; // rows that a warp prefetches

extern "C" __global__ void __launch_bounds__(THREADS)
linear_recurrence_token(const Q_T *q, const K_T *k, const V_T *v, const float *g, float *state, O_T *o, int heads, int keys, int values,
                        float scale, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_g, int64_t stride_o) {
  let_next_begin();
  extern __shared__ float reads[]; // [keys], followed by writes and decays
  float *writes = reads + keys, *decays = writes + keys;
  __shared__ float sums[WARPS][COLUMNS];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, h = blockIdx.y, first = blockIdx.x * COLUMNS, j = first + lane * WIDTH;
  bool there = j < values;
  int64_t row = blockIdx.z;
  state += (row * heads + h) * keys * values + j;

  float s[AHEAD][WIDTH];
  auto fetch = [&](int n, int i) {
    if (there && i < keys) load_vector<WIDTH>(state + (int64_t)i * values, s[n]);
  };
#pragma unroll
  for (int n = 0; n < AHEAD; n++) fetch(n, n * WARPS + warp);
  wait_for_inputs();
  for (int i = threadIdx.x; i < keys; i += THREADS) {
    reads[i] = to_float(q[row * stride_q + h * keys + i]) * scale;
    writes[i] = to_float(k[row * stride_k + h * keys + i]);
#ifdef LOG_DECAYS
    decays[i] = decay(log_decays[h]);
#else
    decays[i] = decay(g[row * stride_g + h * keys + i]);
#endif
  }
  float x[WIDTH] = {}, sum[WIDTH] = {};
#pragma unroll
  for (int e = 0; e < WIDTH; e++)
    if (there) x[e] = to_float(v[row * stride_v + (int64_t)h * values + j + e]);
  __syncthreads();

  for (int i0 = warp; there && i0 < keys; i0 += AHEAD * WARPS) {
#pragma unroll
    for (int n = 0; n < AHEAD; n++) {
      int i = i0 + n * WARPS;
      if (i >= keys) break;
#pragma unroll
      for (int e = 0; e < WIDTH; e++) {
        s[n][e] = decays[i] * s[n][e] + writes[i] * x[e];
        sum[e] += reads[i] * s[n][e];
      }
      store_vector<WIDTH>(state + (int64_t)i * values, s[n]);
      fetch(n, i + AHEAD * WARPS);
    }
  }
#pragma unroll
  for (int e = 0; e < WIDTH; e++) sums[warp][lane * WIDTH + e] = sum[e];
  __syncthreads();
  int c = threadIdx.x;
  if (c >= COLUMNS || first + c >= values) return;
  float total = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; w++) total += sums[w][c];
  store(o + row * stride_o + (int64_t)h * values + first + c, total);
}
