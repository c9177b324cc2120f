// Inputs are the operands of a forward pass and the strides of their rows.
struct Inputs {
  const U_T *u;
  const DT_T *dt;
  const float *dt_bias, *a_log;
  const B_T *b;
  const C_T *c;
  const float *d;
  const Z_T *z;
  const int *documents;
  int tokens, channels, u_stride, dt_stride, b_stride, c_stride, z_stride;
};

// scan walks a segment from the states h and leaves the final states there. total is the sum of the
// time steps of each of the thread's channels. If saved is not null, it saves the states before
// each chunk. Without Outputs it does nothing else.
template <bool Outputs>
__device__ __forceinline__ void scan(const Inputs &in, Place &at, const Segment &seg, float h[TILE][PER],
                                     float rate[TILE][PER], float total[TILE], H_T *saved, Y_T *y, int y_stride) {
  // steps holds (step, delta u) of each token and channel, and of the tokens done, sum_n Cm h.
  __shared__ __align__(16) float2 steps[CHUNK][CHANNELS];
  __shared__ __align__(16) float bs[CHUNK * STATES], cs[Outputs ? CHUNK * STATES : 4];
  __shared__ __align__(16) float bias[CHANNELS], skip[CHANNELS];
  int row = blockIdx.x * in.tokens;
  int chunks = (in.tokens + CHUNK - 1) / CHUNK;
  load_parameter(bias, in.dt_bias, at);
  load_parameter(skip, in.d, at);

  // The next chunk's u and dt are fetched while this one is scanned.
  Octet<U_T> u[OCTETS], next_u[OCTETS];
  Octet<DT_T> next_dt[OCTETS];
  auto fetch_chunk = [&](int chunk) {
    at.forget();
    int t0 = row + chunk * CHUNK, count = tokens_of(chunk, in.tokens);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = within(t, count) ? at.left() : 0;
      fetch(next_u[i], octet_at(in.u, t0 + t, in.u_stride, at.octet()), left);
      fetch(next_dt[i], octet_at(in.dt, t0 + t, in.dt_stride, at.octet()), left);
    }
  };
  if (seg.from < seg.to) fetch_chunk(seg.from);
  __syncthreads();
  for (int chunk = seg.from; chunk < seg.to; chunk++) {
    int t0 = row + chunk * CHUNK, count = tokens_of(chunk, in.tokens);
    float shift[8];
    load8(bias + at.column(), shift);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i);
      float x[8], delta[8];
      u[i] = next_u[i];
      unpack(u[i], x);
      unpack(next_dt[i], delta);
      time_steps(delta, shift, within(t, count));
      bool first_token = begins(in.documents + row, chunk * CHUNK + t, within(t, count));
      if (within(t, CHUNK)) {
        int first = t * CHANNELS + spread(t, at.column());
#pragma unroll
        for (int k = 0; k < 8; k += 2)
          *(float4 *)(&steps[0][0] + (first ^ k)) =
              make_float4(first_token ? FORGET : delta[k], delta[k] * x[k],
                          first_token ? FORGET : delta[k + 1], delta[k + 1] * x[k + 1]);
      }
    }
    load_matrix(bs, in.b, t0, in.b_stride, count);
    if (Outputs) load_matrix(cs, in.c, t0, in.c_stride, count);
    if (saved) {
#pragma unroll
      for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int k = 0; k < PER; k++)
          if (at.has(c, k)) store(saved + at.state((int64_t)blockIdx.x * chunks + chunk, c, k), h[c][k]);
    }
    __syncthreads();

    if (chunk + 1 < seg.to) fetch_chunk(chunk + 1);
#ifdef GATED
    Octet<Z_T> z[OCTETS];
    if (Outputs) {
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i);
        fetch(z[i], octet_at(in.z, t0 + t, in.z_stride, at.octet()), within(t, count) ? at.left() : 0);
      }
    }
#endif
    // A batch has as many tokens as a channel has threads: each thread gets the sum of one token.
    for (int t = 0; t < count; t += LANES) {
      float sums[TILE][LANES];
#pragma unroll
      for (int i = 0; i < LANES; i++) {
        float b[PER], c[PER];
        load_states(bs + (t + i) * STATES + at.part * PER, b);
        if (Outputs) load_states(cs + (t + i) * STATES + at.part * PER, c);
#pragma unroll
        for (int j = 0; j < TILE; j++) {
          float2 s = steps[t + i][spread(t + i, at.channel(j))];
          if (!Outputs) total[j] += s.x;
          sums[j][i] = 0.f;
#pragma unroll
          for (int k = 0; k < PER; k++) {
            h[j][k] = fmaf(fast_exp2(s.x * rate[j][k]), h[j][k], s.y * b[k]);
            if (Outputs) sums[j][i] = fmaf(c[k], h[j][k], sums[j][i]);
          }
        }
      }
      if (Outputs) {
#pragma unroll
        for (int j = 0; j < TILE; j++) fold<LANES, LANES, COLUMNS>(sums[j], at.part);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < TILE; j++) steps[t + at.part][spread(t + at.part, at.channel(j))].x = sums[j][0];
      }
    }
    __syncthreads();

    if (Outputs) {
      at.forget();
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i), left = within(t, count) ? at.left() : 0;
        if (left <= 0) continue;
        float x[8], out[8], weight[8];
        unpack(u[i], x);
        load8(skip + at.column(), weight);
        int first = t * CHANNELS + spread(t, at.column());
#pragma unroll
        for (int k = 0; k < 8; k++) out[k] = fmaf(weight[k], x[k], (&steps[0][0] + (first ^ k))->x);
#ifdef GATED
        float gate[8];
        unpack(z[i], gate);
#pragma unroll
        for (int k = 0; k < 8; k++) out[k] *= gate[k] * scan_sigmoid(gate[k]);
#endif
        put(octet_at(y, t0 + t, y_stride, at.octet()), out, left);
      }
    }
  }
}

// selective_scan computes y [B T C] and, if not null, the states before each chunk, saved
// [B][chunks][N][C], and the final states, state [B][N][C]. starts [B][segments][PIECES][N][C] are
// the states at the start of each piece of the segments; null means zeros. Grid: rows, slices of
// the channels, segments of `length` chunks.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c,
               const float *d, const Z_T *z, const int *documents, const float *starts, H_T *saved, float *state,
               Y_T *y, int length,
               int tokens, int channels, int u_stride, int dt_stride, int b_stride, int c_stride, int z_stride,
               int y_stride) {
  Inputs in = {u, dt, dt_bias, a_log, b, c, d, z, documents, tokens, channels, u_stride, dt_stride, b_stride, c_stride, z_stride};
  Place at(blockIdx.y, channels);
  Segment seg(blockIdx.z, length, tokens);
  float h[TILE][PER], rate[TILE][PER], total[TILE] = {};
  at.rates(a_log, rate);
  at.load(h, starts, ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * PIECES);
  scan<true>(in, at, seg, h, rate, total, saved, y, y_stride);
  if (state && blockIdx.z == gridDim.z - 1) {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++)
        if (at.has(c, k)) state[at.state(blockIdx.x, c, k)] = h[c][k];
  }
}

// selective_scan_ends computes, for each piece of all segments but the last, the states that it
// would end with if it started from zeros (ends), and the factor by which it decays its initial
// states (decays), both [B][segments][PIECES][N][C]. Grid: rows, slices, pieces.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_ENDS)
selective_scan_ends(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                    const float *d, const int *documents, float *ends, float *decays, int length, int tokens,
                    int channels, int u_stride, int dt_stride, int b_stride) {
  Inputs in = {u, dt, dt_bias, a_log, b, nullptr, d, nullptr, documents, tokens, channels, u_stride, dt_stride, b_stride, 0, 0};
  Place at(blockIdx.y, channels);
  Segment seg = Segment(blockIdx.z / PIECES, length, tokens).piece(blockIdx.z % PIECES);
  float h[TILE][PER] = {}, rate[TILE][PER], total[TILE] = {};
  at.rates(a_log, rate);
  scan<false>(in, at, seg, h, rate, total, nullptr, nullptr, 0);
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++) {
      int64_t i = at.state((int64_t)blockIdx.x * (gridDim.z + PIECES) + blockIdx.z, c, k);
      if (at.has(c, k)) ends[i] = h[c][k], decays[i] = fast_exp2(total[c] * rate[c][k]);
    }
}
