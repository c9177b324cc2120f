#define UNROLL 4 // tokens

// selective_scan_backward_ends computes, for each piece of all segments but the first, the gradient
// that it sends back to the states before it when none comes from after it (ends), and the factor
// by which it passes on a gradient from after it (decays), both [B][segments PIECES][N][C]. Grid:
// rows, slices, pieces.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_ENDS)
selective_scan_backward_ends(const DT_T *dt, const float *dt_bias, const float *a_log, const C_T *c, const Z_T *z,
                             const DY_T *dy, const int *documents, float *ends, float *decays, int length,
                             int tokens, int channels, int dt_stride, int c_stride, int z_stride, int dy_stride) {
  __shared__ __align__(16) float2 steps[CHUNK][CHANNELS]; // (step, g)
  __shared__ __align__(16) float cs[CHUNK * STATES];
  __shared__ __align__(16) float bias[CHANNELS];
  Place at(blockIdx.y, channels);
  int piece = blockIdx.z + PIECES;
  Segment seg = Segment(piece / PIECES, length, tokens).piece(piece % PIECES);
  int row = blockIdx.x * tokens;
  load_parameter(bias, dt_bias, at);
  float rate[TILE][PER], dh[TILE][PER] = {}, total[TILE] = {};
  at.rates(a_log, rate);
  __syncthreads();
  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    int t0 = row + chunk * CHUNK;
    int count = tokens_of(chunk, tokens), column = at.column();
    float shift[8];
    load8(bias + column, shift);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = within(t, count) ? at.left() : 0;
      if (!within(t, CHUNK)) continue;
      Octet<DT_T> dt8;
      Octet<DY_T> dy8;
      fetch(dt8, octet_at(dt, t0 + t, dt_stride, at.octet()), left);
      fetch(dy8, octet_at(dy, t0 + t, dy_stride, at.octet()), left);
      float delta[8], g[8];
#ifdef GATED
      Octet<Z_T> z8;
      float gate[8];
      fetch(z8, octet_at(z, t0 + t, z_stride, at.octet()), left);
      unpack(z8, gate);
#endif
      unpack(dt8, delta);
      unpack(dy8, g);
      time_steps(delta, shift, within(t, count));
      bool first_token = begins(documents + row, chunk * CHUNK + t, within(t, count));
#pragma unroll
      for (int k = 0; k < 8; k++) {
#ifdef GATED
        g[k] *= gate[k] * scan_sigmoid(gate[k]);
#endif
        steps[t][spread(t, column + k)] = make_float2(first_token ? FORGET : delta[k], g[k]);
      }
    }
    load_matrix(cs, c, t0, c_stride, count);
    __syncthreads();
    for (int t = (count - 1) / UNROLL * UNROLL; t >= 0; t -= UNROLL) {
#pragma unroll
      for (int i = UNROLL - 1; i >= 0; i--) {
        float cm[PER];
        load_states(cs + (t + i) * STATES + at.part * PER, cm);
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float2 s = steps[t + i][spread(t + i, at.channel(c))];
          total[c] += s.x;
#pragma unroll
          for (int k = 0; k < PER; k++) dh[c][k] = fmaf(s.y, cm[k], dh[c][k]) * fast_exp2(s.x * rate[c][k]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++) {
      int64_t i = at.state((int64_t)blockIdx.x * (gridDim.z + PIECES) + piece, c, k);
      if (at.has(c, k)) ends[i] = dh[c][k], decays[i] = fast_exp2(total[c] * rate[c][k]);
    }
}
