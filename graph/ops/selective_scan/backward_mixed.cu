// The mixed-precision backward pass, for 16 states and 64 channels per block. It proceeds like
// backward.cu, but the tensor cores do the multiplications by Bm and Cm and the sums over states
// and channels, with bfloat16 operands and float32 sums.
//
// A thread holds 8 states in the accumulator layout of two 16x8 products whose rows are channels
// and whose columns are states: element s belongs to channel s/2%2 of two neighbouring channels and
// is state number part*2 + s/4*8 + s%2.

#define GROUP 4 // tokens whose states are in registers at once
#define GROUPS (CHUNK / GROUP)
#define PAIRS (CHANNELS / 2)
#define ROW (PAIRS + 2)      // of steps and rests; neighbouring tokens are in different banks
#define HISTORY (8 * WARP)   // floats per warp and group
#define PART (8 * LANES + 8) // floats between the sums of neighbouring tokens

// slot is the position of a pair of channels in a row of steps, chosen so that threads with
// neighbouring octets write to different banks.
__device__ __forceinline__ int slot(int pair) { return pair ^ pair / 8 % 4; }

// Shared is a block's shared memory. Reads for the (nonexistent) group before the first one fall
// into the array before, and their results are not used.
struct Shared {
  float bias[CHANNELS], skip[CHANNELS];
  Rows rows;
  // The states before each group; for groups that are done, the warp's sums over channels: token t
  // starts at t*PART, and within it part p at p*8, the sums of its 4 states for dCm and then for
  // dBm.
  float history[GROUPS][WARPS][HISTORY];
  // Per token and pair of channels: the time steps, negative where states are forgotten, and for
  // each channel the pair (delta u, g); once the token is done, the sums over states of Cm h and of
  // dh Bm.
  float4 steps[CHUNK][ROW];
  // The sums over states of w A, and two pairs: the time steps, and sigmoid(z).
  float4 rests[CHUNK][ROW];
  TokenSums over_tokens[THREADS]; // here, because registers spilled for the length of a chunk would be slow to reload
};

// Group points to a thread's data for GROUP tokens.
struct Group {
  float4 *steps, *rests;     // of the thread's channels; the next token is ROW further
  const uint2 *b, *c, *sums; // rows
  float *history;            // the warp's

  __device__ __forceinline__ Group(Shared &shared, const Place &at) {
    int pair = slot(at.warp * COLUMNS + at.lane / LANES), term = at.part == 0 ? at.lane / LANES : 8;
    steps = shared.steps[0] + pair, rests = shared.rests[0] + pair;
    b = shared.rows.b[0] + term, c = shared.rows.c[0] + term;
    // Each lane reads the row of its column of the right operand: Cm and Bm of each token.
    sums = shared.rows.sums[at.lane / 8][at.lane / LANES % 2] + at.part;
    history = shared.history[0][at.warp];
  }
  __device__ __forceinline__ void move(int groups) {
    int tokens = groups * GROUP;
    steps += tokens * ROW, rests += tokens * ROW, b += tokens * TERMS, c += tokens * TERMS, sums += tokens * 2 * LANES;
    history += groups * WARPS * HISTORY;
  }
  __device__ __forceinline__ void load(float h[8], int lane) const {
    load4(history + lane * 4, h), load4(history + HISTORY / 2 + lane * 4, h + 4);
  }
  __device__ __forceinline__ void save(const float h[8], int lane) const {
    store4(history + lane * 4, h), store4(history + HISTORY / 2 + lane * 4, h + 4);
  }
};

// Token is how the states change at one token.
struct Token {
  float decay[8];
  uint32_t before[4]; // the states before it, rounded
  uint2 factors;      // the pair (delta u, g) of each channel

  __device__ __forceinline__ void load(float4 step, const float rate[8]) {
    float d[2] = {step_of(step.x), step_of(step.y)};
    factors = make_uint2(__float_as_uint(step.z), __float_as_uint(step.w));
#pragma unroll
    for (int s = 0; s < 8; s++) decay[s] = fast_exp2(d[s / 2 % 2] * rate[s]);
  }
  // advance turns the states before the token into those after it.
  __device__ __forceinline__ void advance(float h[8], uint2 b) const {
#pragma unroll
    for (int s = 0; s < 8; s++) h[s] *= decay[s];
    add_outer(h, factors, b);
  }
};

// Sums are over the states (ch, dhb and wa) and over the warp's channels (low for parts 0 and 1,
// high for 2 and 3). Each token is added in its own columns, so that finally the lanes of part i
// hold the sums of token i.
struct Sums {
  float ch[4], dhb[4], wa[4], low[4], high[4];
  uint32_t wd[4]; // w delta, over the tokens

  // store writes the sums where the values they are made of were.
  __device__ __forceinline__ void store(const Group &group, const Place &at) const {
    float *to = group.history + at.part * PART + at.lane / LANES;
    to[0] = low[0], to[8] = low[2], to[16] = high[0], to[24] = high[2];
    group.steps[at.part * ROW] = make_float4(ch[0], ch[2], dhb[1], dhb[3]);
    *(float2 *)(group.rests + at.part * ROW) = make_float2(wa[0], wa[2]);
  }
};

// Thread is the state that a thread keeps over all tokens.
struct Thread {
  float rate[8], dh[8], da[8]; // rate is A log2(e)
  uint32_t rates[4];           // A, rounded
  uint32_t identity;           // as a right operand
  uint32_t last[4];            // the states after the tokens still to be processed, rounded

  // sweep goes back over token i of a group. `after` are the states after that token.
  __device__ __forceinline__ void sweep(const Token &token, const uint32_t after[4], const Group &group, int i, uint2 row,
                                        Sums &sums, int lane) {
    uint32_t rounded[4], w[4], terms[4], turned[4], x = token.factors.x, y = token.factors.y;
    uint32_t ones = lane / 8 == i ? ONES : 0;
    add_outer(dh, token.factors, group.c[i * TERMS]);
    round8(rounded, dh);
    uint2 column = make_uint2(mul2(row.x, ones), mul2(row.y, ones));
    add_sums(sums.ch, after, column);
    add_sums(sums.dhb, rounded, column);

    // The terms of dCm and dBm, of both channels.
#pragma unroll
    for (int k = 0; k < 2; k++) {
      terms[k] = fma2(after[2 * k + 1], both<1>(y), mul2(after[2 * k], both<1>(x)));
      terms[2 + k] = fma2(rounded[2 * k + 1], both<0>(y), mul2(rounded[2 * k], both<0>(x)));
    }
    turn(turned, terms, (uint4 *)group.history + i % 2 * WARP, lane);
    mma_16x8x8(sums.low, turned[0], turned[1], ones);
    mma_16x8x8(sums.high, turned[2], turned[3], ones);

#pragma unroll
    for (int s = 0; s < 8; s++) dh[s] *= token.decay[s];
    round8(rounded, dh);
#pragma unroll
    for (int k = 0; k < 4; k++) w[k] = mul2(rounded[k], token.before[k]); // 0 where states are forgotten
    mma_16x8x8(sums.wa, fma2(w[2], rates[2], mul2(w[0], rates[0])), fma2(w[3], rates[3], mul2(w[1], rates[1])), ones);
    uint32_t deltas = __float_as_uint(group.rests[i * ROW].z);
#pragma unroll
    for (int k = 0; k < 4; k++) sums.wd[k] = fma2(w[k], k % 2 ? both<1>(deltas) : both<0>(deltas), sums.wd[k]);
  }

  // walk goes through a chunk from the states h and keeps the states before its groups. For the
  // last chunk of the segment it also computes the states after it, which are not known otherwise.
  __device__ __forceinline__ void walk(Group group, float h[8], const Place &at, bool last_chunk) {
    group.save(h, at.lane);
    int groups = last_chunk ? GROUPS : GROUPS - 1;
#pragma unroll 1
    for (int j = 1; j <= groups; j++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        Token token;
        token.load(group.steps[i * ROW], rate);
        token.advance(h, group.b[i * TERMS]);
      }
      group.move(1);
      if (j < GROUPS) group.save(h, at.lane);
    }
    if (last_chunk) round8(last, h);
  }

  // back goes back through a chunk after walk. It computes the states of a group while it processes
  // the group after it: an exp2 keeps its warp from issuing another one for 8 cycles, in which other
  // instructions can issue.
  __device__ __forceinline__ void back(Group group, const Place &at) {
    Token next[GROUP];
    float h[8];
    auto prepare = [&](const Group &group, int i) {
      next[i].load(group.steps[i * ROW], rate);
      round8(next[i].before, h);
      if (i < GROUP - 1) next[i].advance(h, group.b[i * TERMS]);
    };
    group.move(GROUPS - 1);
    group.load(h, at.lane);
#pragma unroll
    for (int i = 0; i < GROUP; i++) prepare(group, i);
#pragma unroll 2
    for (int j = 0; j < GROUPS; j++) {
      Group front = group;
      front.move(-1);
      Token tokens[GROUP];
#pragma unroll
      for (int i = 0; i < GROUP; i++) tokens[i] = next[i];
      uint2 row = *group.sums;
      __syncwarp(); // history has been read; its space is reused
      front.load(h, at.lane);
      Sums sums = {};
#pragma unroll
      for (int i = GROUP - 1; i >= 0; i--) {
        sweep(tokens[i], i == GROUP - 1 ? last : tokens[i + 1].before, group, i, row, sums, at.lane);
        prepare(front, GROUP - 1 - i);
      }
#pragma unroll
      for (int k = 0; k < 4; k++) last[k] = tokens[0].before[k];
      mma_16x8x8(da, sums.wd[0], sums.wd[1], identity);
      mma_16x8x8(da + 4, sums.wd[2], sums.wd[3], identity);
      __syncwarp(); // all lanes have read the group's steps and the last terms
      sums.store(group, at);
      group = front;
    }
  }
};

// put_steps computes the steps of a chunk.
__device__ __forceinline__ void put_steps(Shared &shared, const Octets &octets, const Place &at, const int *documents, int first, int count) {
  float shift[8];
  load8(shared.bias + at.column(), shift);
#pragma unroll
  for (int i = 0; i < OCTETS; i++) {
    int t = at.token(i);
    float x[8], delta[8], g[8], gate[8] = {};
    unpack(octets.u[i], x);
    unpack(octets.dt[i], delta);
    unpack(octets.dy[i], g);
    time_steps(delta, shift, within(t, count));
    bool first_token = begins(documents, first + t, within(t, count));
#ifdef GATED
    unpack(octets.z[i], gate);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      float q = scan_sigmoid(gate[k]);
      g[k] *= gate[k] * q, gate[k] = q;
    }
#endif
#pragma unroll
    for (int k = 0; k < 8; k += 2) {
      int at_pair = slot(at.column() / 2 + k / 2);
      shared.steps[t][at_pair] =
          make_float4(first_token ? -delta[k] : delta[k], first_token ? -delta[k + 1] : delta[k + 1],
                      __uint_as_float(pack_bf16(delta[k] * x[k], g[k])), __uint_as_float(pack_bf16(delta[k + 1] * x[k + 1], g[k + 1])));
      *((uint2 *)&shared.rests[t][at_pair] + 1) = make_uint2(pack_bf16(delta[k], delta[k + 1]), pack_bf16(gate[k], gate[k + 1]));
    }
  }
}

// put_gradients computes du, ddt and dz of a chunk that is done.
__device__ __forceinline__ void put_gradients(const Shared &shared, const Octets &octets, const Place &at, const Gradients &out, int t0, int count,
                                              TokenSums &over_tokens) {
  float weight[8], sum[16] = {}; // of ddt and of g u, over the thread's tokens
  load8(shared.skip + at.column(), weight);
#pragma unroll
  for (int i = 0; i < OCTETS; i++) {
    int t = at.token(i), left = within(t, count) ? at.left() : 0;
    if (left <= 0) continue;
    float x[8], up[8], out_u[8], out_dt[8], out_z[8];
    unpack(octets.u[i], x);
    unpack(octets.dy[i], up);
#ifdef GATED
    float gate[8];
    unpack(octets.z[i], gate);
#endif
#pragma unroll
    for (int k = 0; k < 8; k++) {
      float4 done = shared.steps[t][slot(at.column() / 2 + k / 2)], rest = shared.rests[t][slot(at.column() / 2 + k / 2)];
      float g = up[k], dhb = k % 2 ? done.w : done.z;
#ifdef GATED
      float q = half_of(__float_as_uint(rest.w), k);
      g *= q;
      out_z[k] = g * fmaf(weight[k], x[k], k % 2 ? done.y : done.x) * fmaf(gate[k], 1.f - q, 1.f);
      g *= gate[k];
#endif
      out_u[k] = fmaf(weight[k], g, half_of(__float_as_uint(rest.z), k) * dhb);
      // sigmoid(x) is 1 - exp(-softplus(x)), with an error of 1e-7.
      out_dt[k] = fmaf(x[k], dhb, k % 2 ? rest.y : rest.x) * (1.f - fast_exp(-half_of(__float_as_uint(rest.z), k)));
      sum[k] += out_dt[k];
      sum[8 + k] = fmaf(g, x[k], sum[8 + k]);
    }
    out.put(at, t0 + t, left, out_u, out_dt, out_z);
  }
  over_tokens.add(sum, at);
}

// put_slices adds up the warps' partial dBm and dCm and rounds the result. slice [tokens][2][N] is
// the chunk's.
__device__ __forceinline__ void put_slices(const Shared &shared, SLICE_T *slice, int count) {
  int first = threadIdx.x / (2 * LANES), part = threadIdx.x / 2 % LANES, matrix = threadIdx.x % 2;
  const float *from = shared.history[first / GROUP][0] + first % GROUP * PART + part * 8 + matrix * 4;
  SLICE_T *to = slice + (first * 2 + 1 - matrix) * N + part * 2;
#pragma unroll
  for (int t = 0; t < CHUNK; t += THREADS / (2 * LANES)) {
    if (first + t >= count) break;
    float total[4] = {}, x[4];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      load4(from + (t / GROUP * WARPS + w) * HISTORY, x);
#pragma unroll
      for (int k = 0; k < 4; k++) total[k] = w ? total[k] + x[k] : x[k];
    }
    *(uint32_t *)(to + t * 2 * N) = pack_bf16(total[0], total[1]);
    *(uint32_t *)(to + t * 2 * N + 8) = pack_bf16(total[2], total[3]);
  }
}

__device__ __forceinline__ float2 load_pair(const float *p) { return *(const float2 *)p; }
__device__ __forceinline__ float2 load_pair(const bf16 *p) {
  uint32_t x = *(const uint32_t *)p;
  return make_float2(half_of(x, 0), half_of(x, 1));
}

// load_states8 loads a thread's 8 states from the i-th [N C], where its state 0 is state `number` of
// channel `channel`. If states is null they are zero.
template <typename Type>
__device__ __forceinline__ void load_states8(float h[8], const Type *states, int channels, int channel, int number, int64_t i) {
  const Type *from = states + (i * N + number) * channels + channel;
#pragma unroll
  for (int i = 0; i < 4; i++) { // state numbers; a pair of channels at once
    float2 x = states ? load_pair(from + (i / 2 * 8 + i % 2) * channels) : make_float2(0.f, 0.f);
    h[i / 2 * 4 + i % 2] = x.x, h[i / 2 * 4 + i % 2 + 2] = x.y;
  }
}

// selective_scan_backward: as in backward.cu. Bm and Cm are bfloat16; octets, and 4 neighbours of
// Bm and Cm, can be accessed at once.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_backward(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                        const C_T *c, const float *d, const Z_T *z, const H_T *saved, const DY_T *dy,
                        const int *documents, const float *lasts, DU_T *du, DDT_T *ddt, DZ_T *dz, SLICE_T *slices,
                        float *rows, int length, int tokens, int channels, int u_stride, int dt_stride, int b_stride,
                        int c_stride, int z_stride, int dy_stride, int du_stride, int ddt_stride, int dz_stride) {
  static_assert(N == 16 && PER == 4 && LANES == 4 && TILE == 2 && OCTETS * THREADS == CHUNK * ROW_OCTETS, "of other sizes is backward.cu");
  extern __shared__ __align__(128) unsigned char arena[];
  Shared &shared = *(Shared *)arena;
  Place at(blockIdx.y, channels);
  Segment seg(blockIdx.z, length, tokens);
  int row = blockIdx.x * tokens, chunks = (tokens + CHUNK - 1) / CHUNK;
  Operands in = {u, dt, dy, z, u_stride, dt_stride, dy_stride, z_stride};
  Gradients out = {du, ddt, dz, du_stride, ddt_stride, dz_stride};
  load_parameter(shared.bias, dt_bias, at);
  load_parameter(shared.skip, d, at);
  shared.rows.zeros();
  TokenSums &over_tokens = shared.over_tokens[at.thread];
  over_tokens = TokenSums();

  // number and channel are those of the thread's state 0.
  int number = at.part * 2, channel = at.first + (at.warp * COLUMNS + at.lane / LANES) * 2;
  Thread thread;
  float natural[8];
#pragma unroll
  for (int s = 0; s < 8; s++) {
    thread.rate[s] = slowest(-LOG2E * expf(a_log[(int64_t)(channel + s / 2 % 2) * N + number + s / 4 * 8 + s % 2]));
    natural[s] = LN2 * thread.rate[s], thread.da[s] = 0.f;
  }
  round8(thread.rates, natural);
  thread.identity = at.lane / LANES / 2 == at.part ? (at.lane / LANES % 2 ? ONES & 0xffff0000u : ONES & 0xffffu) : 0;
  load_states8(thread.dh, lasts, channels, channel, number, ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * PIECES + PIECES - 1);
  __syncthreads();

  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    int t0 = row + chunk * CHUNK, count = tokens_of(chunk, tokens);
    int64_t state = (int64_t)blockIdx.x * chunks + chunk;
    Octets octets;
    float h[8];
    at.forget();
    load_states8(h, saved, channels, channel, number, state);
    octets.ask(in, at, t0, count);
    put_steps(shared, octets, at, documents + row, chunk * CHUNK, count);
    shared.rows.load(b, c, t0, b_stride, c_stride, count);
    __syncthreads();
    if (chunk > seg.from) {
      at.forget();
      prefetch_chunk(in, at, saved, state - 1, t0 - CHUNK);
    }
    Group group(shared, at);
    thread.walk(group, h, at, chunk == seg.to - 1);
    thread.back(group, at);
    at.forget();
    octets.ask(in, at, t0, count); // before du is stored, which may overlap dy
    __syncthreads();
    put_slices(shared, slices + ((int64_t)(blockIdx.y * gridDim.x) * tokens + t0) * 2 * N, count);
    put_gradients(shared, octets, at, out, t0, count, over_tokens);
  }

  rows += ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * (N + 2) * channels;
#pragma unroll
  for (int s = 0; s < 8; s++)
    rows[(int64_t)(number + s / 4 * 8 + s % 2) * channels + channel + s / 2 % 2] = thread.da[s] * thread.rate[s] * LN2;
  over_tokens.store(rows, (float *)arena, at);
}
