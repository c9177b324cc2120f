// The backward pass goes through the chunks from the last to the first. From a saved
// state it walks a chunk and keeps the states before every GROUP tokens, then goes back
// group by group: it computes the group's states again, in registers, and sweeps back.
// LANES is 4, as the sums over states on the tensor cores want it.

#define GROUP (PER > 4 ? 2 : 4)
#define GROUPS (CHUNK / GROUP)
#define HISTORY (TILE * PER * WARP) // floats that a warp keeps of a group
// Rows of steps have an element more after every octet, so that what neighbouring threads'
// octets have at the same place is in different banks, and two at the end, so that what
// neighbouring tokens have there is, too.
#define ROW (CHANNELS + CHANNELS / 8 + 2)

// step_of and delta_of are what steps has for a token: the step of the states, and the time
// step itself.
__device__ __forceinline__ float step_of(float x) {
#ifdef BY_DOCUMENT
  return __float_as_int(x) < 0 ? FORGET : x;
#else
  return x;
#endif
}
__device__ __forceinline__ float delta_of(float x) {
#ifdef BY_DOCUMENT
  return fabsf(x);
#else
  return x;
#endif
}

__device__ __forceinline__ void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// selective_scan_backward: du, ddt and dz [B T C], the block's part of dBm and dCm,
// slices [slices][B T][2][N], and of dA_log, ddt_bias and dD, rows [B*segments][N+2][C].
// lasts [B][segments][PIECES][N][C] are what the tokens after a piece of a segment send back to
// its last states, zeros where null. Grid: slices of the channels, segments of `length` chunks,
// rows. du may lie where dy does.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_backward(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                        const C_T *c, const float *d, const Z_T *z, const float *saved, const DY_T *dy,
                        const int *documents, const float *lasts, DU_T *du, DDT_T *ddt, DZ_T *dz, float *slices,
                        float *rows, int length, int tokens, int channels, int u_stride, int dt_stride, int b_stride,
                        int c_stride, int z_stride, int dy_stride, int du_stride, int ddt_stride, int dz_stride) {
  extern __shared__ __align__(128) unsigned char arena[];
  // steps holds (delta, delta u, g, u) of each token and channel, with a minus before delta
  // where states are forgotten, and of the tokens done (sum_n Cm h, delta sum_n dh Bm, ddelta,
  // g). history holds the states before the groups; of the groups done, the warp's parts of
  // dBm and dCm, [GROUP][2][STATES].
  float4 *steps = (float4 *)arena;
  float *history = (float *)(steps + CHUNK * ROW);
  // Half a line between Bm and Cm makes what a quarter of a warp reads of both meet no bank.
  float *bs = history + GROUPS * WARPS * HISTORY, *cs = bs + CHUNK * STATES + 16;
  float *bias = cs + CHUNK * STATES, *skip = bias + CHANNELS;

  Place at(blockIdx.x, channels);
  Segment seg(blockIdx.y, length, tokens);
  int row = blockIdx.z * tokens;
  int chunks = (tokens + CHUNK - 1) / CHUNK;
  load_parameter(bias, dt_bias, at);
  load_parameter(skip, d, at);

  constexpr int kept = ROW_OCTETS / 2; // of the sums over tokens, after folding
  float rate[TILE][PER], dh[TILE][PER], da[TILE][PER] = {}, over_tokens[kept] = {};
  at.rates(a_log, rate);
  at.load(dh, lasts, ((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * PIECES + PIECES - 1);
  __syncthreads();

  // What a chunk needs is fetched at once, before any of it is used.
  float h[TILE][PER];
  Octet<U_T> chunk_u[OCTETS];
  Octet<DT_T> chunk_dt[OCTETS];
  Octet<DY_T> chunk_dy[OCTETS];
#ifdef GATED
  Octet<Z_T> chunk_z[OCTETS];
#endif
  auto fetch_chunk = [&](int chunk) {
    at.forget();
    at.load(h, saved, (int64_t)blockIdx.z * chunks + chunk);
    int t0 = row + chunk * CHUNK, count = min(CHUNK, tokens - chunk * CHUNK);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0;
      fetch(chunk_u[i], octet_at(u, t0 + t, u_stride, at.octet()), left);
      fetch(chunk_dt[i], octet_at(dt, t0 + t, dt_stride, at.octet()), left);
      fetch(chunk_dy[i], octet_at(dy, t0 + t, dy_stride, at.octet()), left);
#ifdef GATED
      fetch(chunk_z[i], octet_at(z, t0 + t, z_stride, at.octet()), left);
#endif
    }
  };
  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    fetch_chunk(chunk);
    int t0 = row + chunk * CHUNK;
    int count = min(CHUNK, tokens - chunk * CHUNK);
    int column = at.column();
    float shift[8];
    load8(bias + column, shift);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i);
      if (t >= CHUNK) continue;
      float x[8], delta[8], g[8];
#ifdef GATED
      float gate[8];
      unpack(chunk_z[i], gate);
#endif
      unpack(chunk_u[i], x);
      unpack(chunk_dt[i], delta);
      unpack(chunk_dy[i], g);
      time_steps(delta, shift, t < count);
      bool first_token = begins(documents + row, chunk * CHUNK + t, t < count);
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
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i);
        if (t >= CHUNK || at.left() <= 0) continue;
        prefetch_l2(octet_at(u, t0 + t - CHUNK, u_stride, at.octet()));
        prefetch_l2(octet_at(dt, t0 + t - CHUNK, dt_stride, at.octet()));
        prefetch_l2(octet_at(dy, t0 + t - CHUNK, dy_stride, at.octet()));
#ifdef GATED
        prefetch_l2(octet_at(z, t0 + t - CHUNK, z_stride, at.octet()));
#endif
      }
      // A line is 32 channels of a state.
      constexpr int lines = CHANNELS / 32 < 1 ? 1 : CHANNELS / 32;
      if (at.thread < N * lines && at.first + at.thread % lines * 32 < channels)
        prefetch_l2(saved + (((int64_t)blockIdx.z * chunks + chunk - 1) * N + at.thread / lines) * channels + at.first +
                    at.thread % lines * 32);
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
      __syncwarp(); // history has been read, and makes room for sums

      float weights[PER], ch[TILE], db[TILE], wa[TILE], wa_pair[2][TILE], sums[GROUP][PER / 4];
      load_states((at.lane / 4 % 2 ? own_b : own_c) + (j * GROUP + at.lane / 8 % GROUP) * STATES, weights);
#pragma unroll
      for (int i = GROUP - 1; i >= 0; i--) {
        int t = j * GROUP + i;
        float bm[PER], cm[PER], x[2 * PER]; // x is the channels' parts of dBm and dCm
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
    // All are fetched before du is stored, which may lie where dy does.
    Octet<U_T> last_u[OCTETS];
    Octet<DT_T> last_dt[OCTETS];
#ifdef GATED
    Octet<DY_T> last_dy[OCTETS];
    Octet<Z_T> last_z[OCTETS];
#endif
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0;
      fetch(last_u[i], octet_at(u, t0 + t, u_stride, at.octet()), left);
      fetch(last_dt[i], octet_at(dt, t0 + t, dt_stride, at.octet()), left);
#ifdef GATED
      fetch(last_dy[i], octet_at(dy, t0 + t, dy_stride, at.octet()), left);
      fetch(last_z[i], octet_at(z, t0 + t, z_stride, at.octet()), left);
#endif
    }
    __syncthreads();

    float sum[16] = {}; // of ddt and of g u, over the thread's tokens
    float weight[8];
    column = at.column();
    load8(bias + column, shift);
    load8(skip + column, weight);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0;
      if (left <= 0) continue;
      float x[8], raw[8], out_u[8], out_dt[8];
      const float4 *step = steps + t * ROW + column / 8 * 9;
      unpack(last_u[i], x);
      unpack(last_dt[i], raw);
#ifdef GATED
      float gate[8], up[8], out_z[8];
      unpack(last_dy[i], up);
      unpack(last_z[i], gate);
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
      put(octet_at(du, t0 + t, du_stride, at.octet()), out_u, left);
      put(octet_at(ddt, t0 + t, ddt_stride, at.octet()), out_dt, left);
#ifdef GATED
      put(octet_at(dz, t0 + t, dz_stride, at.octet()), out_z, left);
#endif
    }
    fold<16, WARP / ROW_OCTETS, ROW_OCTETS>(sum, at.lane / ROW_OCTETS);
#pragma unroll
    for (int i = 0; i < kept; i++) over_tokens[i] += sum[i];

    float *slice = slices + ((int64_t)(blockIdx.x * gridDim.z) * tokens + t0) * 2 * N;
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

  float *mine = rows + ((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * (N + 2) * channels + at.first;
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++)
      if (at.has(c, k)) mine[(int64_t)(at.part * PER + k) * channels + at.channel(c)] = da[c][k] * rate[c][k] * LN2;
  // Lane l of a warp has sums l/ROW_OCTETS*kept on of the 16 of octet l%ROW_OCTETS.
  float *shared = (float *)arena;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kept; i++)
    shared[(at.warp * ROW_OCTETS + at.lane % ROW_OCTETS) * 16 + at.lane / ROW_OCTETS * kept + i] = over_tokens[i];
  __syncthreads();
  for (int i = at.thread; i < 2 * CHANNELS; i += THREADS) {
    int channel = i / 16 * 8 + i % 8;
    if (at.first + channel >= channels) continue;
    float total = 0.f;
    for (int w = 0; w < WARPS; w++) total += shared[w * ROW_OCTETS * 16 + i];
    mine[(int64_t)(N + i / 8 % 2) * channels + channel] = total;
  }
}
