// The backward pass goes through the chunks from last to first. Starting from the saved states, it
// walks a chunk and keeps the states before every GROUP tokens. Then it goes back group by group:
// it recomputes the group's states in registers and sweeps back over them. LANES is 4, as the
// tensor-core sums over states require.

#define GROUP (PER > 4 ? 2 : 4)
#define GROUPS (CHUNK / GROUP)
#define HISTORY (TILE * PER * WARP) // floats per warp and group
// Rows of `steps` have one padding element after every octet, so that neighbouring threads access
// the same position of their octets in different banks, and two at the end, so that neighbouring
// tokens differ in banks too.
#define ROW (CHANNELS + CHANNELS / 8 + 2)

// delta_of returns the time step stored in `steps` for a token.
__device__ __forceinline__ float delta_of(float x) {
#ifdef BY_DOCUMENT
  return fabsf(x);
#else
  return x;
#endif
}

// selective_scan_backward computes du, ddt and dz [B T C], the block's partial dBm and dCm, slices
// [slices][B T][2][N], and its partial dA_log, ddt_bias and dD, rows [B*segments][N+2][C]. lasts
// [B][segments][PIECES][N][C] are the gradients that the tokens after a piece of a segment send
// back to its last states; null means zeros. Grid: rows, slices of the channels, segments of
// `length` chunks. du may overlap dy.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_backward(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                        const C_T *c, const float *d, const Z_T *z, const H_T *saved, const DY_T *dy,
                        const int *documents, const float *lasts, DU_T *du, DDT_T *ddt, DZ_T *dz, float *slices,
                        float *rows, int length, int tokens, int channels, int u_stride, int dt_stride, int b_stride,
                        int c_stride, int z_stride, int dy_stride, int du_stride, int ddt_stride, int dz_stride) {
  extern __shared__ __align__(128) unsigned char arena[];
  // steps holds (delta, delta u, g, u) of each token and channel, with a negative delta where
  // states are forgotten; for tokens that are done it holds (sum_n Cm h, delta sum_n dh Bm, ddelta,
  // g). history holds the states before each group; for groups that are done, the warp's partial
  // dBm and dCm, [GROUP][2][STATES].
  float4 *steps = (float4 *)arena;
  float *history = (float *)(steps + CHUNK * ROW);
  // 16 floats of padding between Bm and Cm keep the accesses of a quarter warp to both in different
  // banks.
  float *bs = history + GROUPS * WARPS * HISTORY, *cs = bs + CHUNK * STATES + 16;
  float *bias = cs + CHUNK * STATES, *skip = bias + CHANNELS;

  Place at(blockIdx.y, channels);
  Segment seg(blockIdx.z, length, tokens);
  int row = blockIdx.x * tokens;
  int chunks = (tokens + CHUNK - 1) / CHUNK;
  load_parameter(bias, dt_bias, at);
  load_parameter(skip, d, at);

  Operands in = {u, dt, dy, z, u_stride, dt_stride, dy_stride, z_stride};
  Gradients out = {du, ddt, dz, du_stride, ddt_stride, dz_stride};
  TokenSums over_tokens;
  float rate[TILE][PER], dh[TILE][PER], da[TILE][PER] = {};
  at.rates(a_log, rate);
  at.load(dh, lasts, ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * PIECES + PIECES - 1);
  __syncthreads();

  float h[TILE][PER];
  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    int t0 = row + chunk * CHUNK, count = tokens_of(chunk, tokens);
    int64_t state = (int64_t)blockIdx.x * chunks + chunk;
    Octets octets;
    at.forget();
    at.load(h, saved, state);
    octets.ask(in, at, t0, count);
    int column = at.column();
    float shift[8];
    load8(bias + column, shift);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i);
      if (!within(t, CHUNK)) continue;
      float x[8], delta[8], g[8];
#ifdef GATED
      float gate[8];
      unpack(octets.z[i], gate);
#endif
      unpack(octets.u[i], x);
      unpack(octets.dt[i], delta);
      unpack(octets.dy[i], g);
      time_steps(delta, shift, within(t, count));
      bool first_token = begins(documents + row, chunk * CHUNK + t, within(t, count));
      float4 *step = steps + t * ROW + column / 8 * 9;
#pragma unroll
      for (int k = 0; k < 8; k++) {
#ifdef GATED
        g[k] *= gate[k] * scan_sigmoid(gate[k]);
#endif
        step[k] = make_float4(first_token ? -delta[k] : delta[k], delta[k] * x[k], g[k], x[k]);
      }
    }
    load_matrix(bs, b, t0, b_stride, count);
    load_matrix(cs, c, t0, c_stride, count);
    __syncthreads();

    if (chunk > seg.from) {
      at.forget();
      prefetch_chunk(in, at, saved, state - 1, t0 - CHUNK);
    }

    float4 *own_steps = steps + at.channel(0) / 8 * 9 + at.channel(0) % 8;
    auto own = [&](int t, int c) { return own_steps + t * ROW + c * 9; };
    const float *own_b = bs + at.part * PER, *own_c = cs + at.part * PER;
    float *own_history = history + at.warp * HISTORY;
    int groups = (count + GROUP - 1) / GROUP;
    for (int j = 0; j < groups; j++) {
#pragma unroll
      for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int k = 0; k < PER; k += 4)
          store4(own_history + j * WARPS * HISTORY + (c * PER + k) * WARP + at.lane * 4, h[c] + k);
      if (j == groups - 1) break;
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        int t = j * GROUP + i;
        float bm[PER];
        load_states(own_b + t * STATES, bm);
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float2 s = *(const float2 *)own(t, c);
          float step = step_of(s.x);
#pragma unroll
          for (int k = 0; k < PER; k++) h[c][k] = fmaf(fast_exp2(step * rate[c][k]), h[c][k], s.y * bm[k]);
        }
      }
    }

    for (int j = groups - 1; j >= 0; j--) {
      float before[GROUP + 1][TILE][PER], decay[GROUP][TILE][PER];
      float *group = own_history + j * WARPS * HISTORY;
#pragma unroll
      for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int k = 0; k < PER; k += 4) load4(group + (c * PER + k) * WARP + at.lane * 4, before[0][c] + k);
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        int t = j * GROUP + i;
        float bm[PER];
        load_states(own_b + t * STATES, bm);
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float2 s = *(const float2 *)own(t, c);
          float step = step_of(s.x);
#pragma unroll
          for (int k = 0; k < PER; k++) {
            decay[i][c][k] = fast_exp2(step * rate[c][k]);
            before[i + 1][c][k] = fmaf(decay[i][c][k], before[i][c][k], s.y * bm[k]);
          }
        }
      }
      __syncwarp(); // history has been read; its space is reused for sums

      float weights[PER], ch[TILE], db[TILE], wa[TILE], wa_pair[2][TILE], sums[GROUP][PER / 4];
      load_states((at.lane / 4 % 2 ? own_b : own_c) + (j * GROUP + at.lane / 8 % GROUP) * STATES, weights);
#pragma unroll
      for (int i = GROUP - 1; i >= 0; i--) {
        int t = j * GROUP + i;
        float bm[PER], cm[PER], x[2 * PER]; // x is the channels' contributions to dBm and dCm
#ifndef FAST
        load_states(own_b + t * STATES, bm);
#endif
        load_states(own_c + t * STATES, cm);
        float4 s[TILE];
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          s[c] = *own(t, c);
#pragma unroll
          for (int k = 0; k < PER; k++) {
            dh[c][k] = fmaf(s[c].z, cm[k], dh[c][k]);
            x[k] = c ? fmaf(dh[c][k], s[c].y, x[k]) : dh[c][k] * s[c].y;
            x[PER + k] = c ? fmaf(s[c].z, before[i + 1][c][k], x[PER + k]) : s[c].z * before[i + 1][c][k];
          }
        }
        sum_products(ch, before[i + 1], cm, weights, i, 0, at.part);
        sum_products(db, dh, bm, weights, i, 1, at.part);
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float sum = 0.f;
#pragma unroll
          for (int k = 0; k < PER; k++) {
            dh[c][k] *= decay[i][c][k];
            float w = dh[c][k] * before[i][c][k];
            sum = fmaf(w, rate[c][k], sum);
            da[c][k] = fmaf(w, s[c].x, da[c][k]); // w is 0 where s.x < 0
          }
          wa_pair[i % 2][c] = sum;
        }
        if (i % 2 == 0) sum_lanes(wa, wa_pair, i, at.lane);
        column_sums(group, x, sums[i], at.lane);
      }
#pragma unroll
      for (int i = 0; i < GROUP; i++)
#pragma unroll
        for (int r = 0; r < PER / 4; r++) {
          int q = 2 * r + at.lane / 16;
          group[(i * 2 + q / (PER / 4)) * STATES + at.lane % 16 / 4 * PER + q % (PER / 4) * 4 + at.lane % 4] = sums[i][r];
        }
      __syncwarp(); // all lanes of the channel have read the group's steps
      if (at.part < GROUP) {
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float4 *step = own(j * GROUP + at.part, c);
          float4 s = *step;
          *step = make_float4(ch[c], delta_of(s.x) * db[c], fmaf(s.w, db[c], LN2 * wa[c]), s.z);
        }
      }
    }
    at.forget();
    octets.ask(in, at, t0, count); // before du is stored, which may overlap dy
    __syncthreads();

    float sum[16] = {}; // of ddt and of g u, over the thread's tokens
    float weight[8];
    column = at.column();
    load8(bias + column, shift);
    load8(skip + column, weight);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = within(t, count) ? at.left() : 0;
      if (left <= 0) continue;
      float x[8], raw[8], out_u[8], out_dt[8], out_z[8];
      const float4 *step = steps + t * ROW + column / 8 * 9;
      unpack(octets.u[i], x);
      unpack(octets.dt[i], raw);
#ifdef GATED
      float gate[8], up[8];
      unpack(octets.dy[i], up);
      unpack(octets.z[i], gate);
#endif
#pragma unroll
      for (int k = 0; k < 8; k++) {
        float4 s = step[k];
        out_u[k] = fmaf(weight[k], s.w, s.y);
        out_dt[k] = s.z * scan_sigmoid(raw[k] + shift[k]);
        sum[k] += out_dt[k];
        sum[8 + k] = fmaf(s.w, x[k], sum[8 + k]);
#ifdef GATED
        float q = scan_sigmoid(gate[k]);
        out_z[k] = up[k] * fmaf(weight[k], x[k], s.x) * q * (1.f + gate[k] * (1.f - q));
#endif
      }
      out.put(at, t0 + t, left, out_u, out_dt, out_z);
    }
    over_tokens.add(sum, at);

    float *slice = slices + ((int64_t)(blockIdx.y * gridDim.x) * tokens + t0) * 2 * N;
    for (int i = at.thread * 4; i < count * 2 * STATES; i += THREADS * 4) {
      int t = i / (2 * STATES), matrix = i / STATES % 2, n = i % STATES;
      const float *part = history + t / GROUP * WARPS * HISTORY + (t % GROUP * 2 + matrix) * STATES + n;
      float total[4], x[4];
      load4(part, total);
#pragma unroll
      for (int w = 1; w < WARPS; w++) {
        load4(part + w * HISTORY, x);
#pragma unroll
        for (int k = 0; k < 4; k++) total[k] += x[k];
      }
      float *to = slice + (t * 2 + matrix) * N + n;
#if N % 4 == 0
      if (n < N) store4(to, total);
#else
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (n + k < N) to[k] = total[k];
#endif
    }
  }

  float *mine = rows + ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * (N + 2) * channels + at.first;
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++)
      if (at.has(c, k)) mine[(int64_t)(at.part * PER + k) * channels + at.channel(c)] = da[c][k] * rate[c][k] * LN2;
  over_tokens.store(mine - at.first, (float *)arena, at);
}
