// A block has CHANNELS neighbouring channels of one row of the batch, and walks a
// segment of its tokens in order, CHUNK at a time. LANES threads share a channel: each
// holds PER of its states, padded with zeros to STATES, and the same ones of TILE
// channels, so that it reads Bm and Cm once for all of them. What the states have in
// common (time step, input, gate) is computed once for a chunk, by threads that have 8
// neighbouring channels of a token: an octet.
//
// Macros: N; CHUNK tokens between saved states; PER, LANES, TILE, CHANNELS, and RESIDENT
// blocks wanted on a multiprocessor; GATED where there is a z; WIDE where octets, and
// WIDE_BC where 4 neighbours of Bm and Cm, can be moved at once; FAST where an operand
// is bf16; the types U_T, DT_T, B_T, C_T, Z_T, and Y_T of the forward pass, or DY_T,
// DU_T, DDT_T, DB_T, DC_T, DZ_T of the backward pass.

#define STATES (LANES * PER)
#define COLUMNS (WARP / LANES) // channels that a warp's lanes are next to each other for
#define WARP_CHANNELS (COLUMNS * TILE)
#define THREADS (CHANNELS / TILE * LANES)
#define WARPS (THREADS / WARP)
#define ROW_OCTETS (CHANNELS / 8)
#define OCTETS ((CHUNK * ROW_OCTETS + THREADS - 1) / THREADS) // of a thread

#define LN2 0.6931471805599453f

// Element-wise functions.

// time_step is softplus.
__device__ __forceinline__ float time_step(float x) {
#ifdef FAST
  float e = fast_exp(x);
  // 1 + e would lose a small e.
  float y = e < 0.01f ? e * (1.f - e * (0.5f - e * 0.33333333f)) : LN2 * fast_log2(1.f + e);
  return x > 20.f ? x : y;
#else
  return softplus(x);
#endif
}

__device__ __forceinline__ float scan_sigmoid(float x) {
#ifdef FAST
  return fast_reciprocal(1.f + fast_exp(-x));
#else
  return 1.f / (1.f + expf(-x));
#endif
}

// Octets. Of 8 channels `left` exist: none where it is 0 or less.

template <typename Type> struct Octet;
template <> struct Octet<bf16> { uint4 v; };
template <> struct Octet<float> { float4 lo, hi; };

__device__ __forceinline__ void unpack(const Octet<bf16> &o, float x[8]) {
  x[0] = __uint_as_float(o.v.x << 16), x[1] = __uint_as_float(o.v.x & 0xffff0000u);
  x[2] = __uint_as_float(o.v.y << 16), x[3] = __uint_as_float(o.v.y & 0xffff0000u);
  x[4] = __uint_as_float(o.v.z << 16), x[5] = __uint_as_float(o.v.z & 0xffff0000u);
  x[6] = __uint_as_float(o.v.w << 16), x[7] = __uint_as_float(o.v.w & 0xffff0000u);
}
__device__ __forceinline__ void unpack(const Octet<float> &o, float x[8]) {
  x[0] = o.lo.x, x[1] = o.lo.y, x[2] = o.lo.z, x[3] = o.lo.w;
  x[4] = o.hi.x, x[5] = o.hi.y, x[6] = o.hi.z, x[7] = o.hi.w;
}

__device__ __forceinline__ void fetch(Octet<bf16> &o, const bf16 *p, int left) {
  o.v = make_uint4(0, 0, 0, 0);
#ifdef WIDE
  if (left > 0) o.v = *(const uint4 *)p;
#else
  uint32_t w[4];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t lo = 2 * k < left ? p[2 * k].bits : 0, hi = 2 * k + 1 < left ? p[2 * k + 1].bits : 0;
    w[k] = lo | hi << 16;
  }
  o.v = make_uint4(w[0], w[1], w[2], w[3]);
#endif
}
__device__ __forceinline__ void fetch(Octet<float> &o, const float *p, int left) {
  o.lo = o.hi = make_float4(0.f, 0.f, 0.f, 0.f);
#ifdef WIDE
  if (left > 0) o.lo = *(const float4 *)p, o.hi = *(const float4 *)(p + 4);
#else
  float x[8];
#pragma unroll
  for (int k = 0; k < 8; k++) x[k] = k < left ? p[k] : 0.f;
  o.lo = make_float4(x[0], x[1], x[2], x[3]), o.hi = make_float4(x[4], x[5], x[6], x[7]);
#endif
}

// octet_at is element (row, column) of a tensor whose rows are stride elements apart.
template <typename Type> __device__ __forceinline__ Type *octet_at(Type *p, int row, int stride, int column) {
  return (Type *)((const char *)p + (int64_t)column * (int)sizeof(Type) + (int64_t)row * (stride * (int)sizeof(Type)));
}

template <typename Type> __device__ __forceinline__ void put(Type *p, const float x[8], int left) {
#ifdef WIDE
  if (left > 0) store8(p, x);
#else
#pragma unroll
  for (int k = 0; k < 8; k++)
    if (k < left) store(p + k, x[k]);
#endif
}

// Place is where a thread works.
struct Place {
  int thread, lane, warp;
  int first;    // the block's first channel
  int own;      // the thread's first channel, of the block's; the next is COLUMNS further
  int part;     // its states are part*PER .. part*PER+PER-1
  int channels; // of the tensors

  __device__ __forceinline__ Place(int block, int channels) : channels(channels) {
    thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    first = block * CHANNELS;
    own = warp * WARP_CHANNELS + lane % COLUMNS;
    part = lane / COLUMNS;
  }
  // The thread's octet i, of OCTETS: its token of the chunk (CHUNK or more for none),
  // its first channel of the block's, and how many channels it has left.
  __device__ __forceinline__ int token(int i) const { return (i * THREADS + thread) / ROW_OCTETS; }
  __device__ __forceinline__ int column() const { return thread % ROW_OCTETS * 8; }
  __device__ __forceinline__ int left() const { return channels - first - column(); }
  __device__ __forceinline__ int octet() const { return first + column(); } // its first channel of the tensors'
  // forget makes the compiler compute what follows from thread again, instead of keeping
  // addresses in registers through the loops over tokens.
  __device__ __forceinline__ void forget() { asm volatile("" : "+r"(thread)); }
  __device__ __forceinline__ int channel(int c) const { return own + c * COLUMNS; }
  // state is the index of the thread's state k of its channel c in a [.. N C] whose [N C]
  // is the i-th.
  __device__ __forceinline__ bool has(int c, int k) const {
    return first + channel(c) < channels && part * PER + k < N;
  }
  __device__ __forceinline__ int64_t state(int64_t i, int c, int k) const {
    return (i * N + part * PER + k) * channels + first + channel(c);
  }
  // rates loads A log2(e), so that exp(delta A) is a power of 2.
  __device__ __forceinline__ void rates(const float *a_log, float rate[TILE][PER]) const {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++)
        rate[c][k] = has(c, k) ? -LOG2E * expf(a_log[(int64_t)(first + channel(c)) * N + part * PER + k]) : 0.f;
  }
};

// Rows of shared memory have an element of Bytes (16 or 8) a channel. spread is where a
// token's channel lies in one: what neighbouring threads' octets have at the same place is
// put in different banks. It is spread(token, first channel of the octet) ^ place.
template <int Bytes> __device__ __forceinline__ int spread(int token, int channel) {
  return channel ^ ((token * ROW_OCTETS + channel / 8) & (Bytes == 16 ? 7 : 6));
}

// load_matrix copies `steps` rows of a [.. N] to shared [CHUNK][STATES], padded with zeros.
template <typename Type>
__device__ __forceinline__ void load_matrix(float *shared, const Type *m, int row, int stride, int steps) {
  constexpr int count = CHUNK * STATES / 4;
#pragma unroll
  for (int first = 0; first < count; first += THREADS) {
    int i = first + threadIdx.x, t = i / (STATES / 4), n = i % (STATES / 4) * 4;
    if (count % THREADS != 0 && i >= count) break;
    const Type *p = octet_at(m, row + t, stride, n);
    float x[4] = {0.f, 0.f, 0.f, 0.f};
#ifdef WIDE_BC
    if (t < steps && n < N) load4(p, x);
#else
#pragma unroll
    for (int k = 0; k < 4; k++)
      if (t < steps && n + k < N) x[k] = load(p + k);
#endif
    store4(shared + i * 4, x);
  }
}

// time_steps makes the steps of an octet from dt; of a token that isn't there 0, which
// leaves states as they are.
__device__ __forceinline__ void time_steps(float x[8], const float *bias, bool there) {
  float b[8];
  load8(bias, b);
#pragma unroll
  for (int k = 0; k < 8; k++) {
    x[k] = time_step(x[k] + b[k]);
    x[k] = there ? x[k] : 0.f;
  }
}

// load_parameter copies the block's part of a [C] to shared [CHANNELS].
__device__ __forceinline__ void load_parameter(float *shared, const float *v, const Place &at) {
  for (int i = threadIdx.x; i < CHANNELS; i += THREADS)
    shared[i] = at.first + i < at.channels ? v[at.first + i] : 0.f;
}

// load_states loads PER neighbours of a row of shared memory.
__device__ __forceinline__ void load_states(const float *p, float x[PER]) {
#pragma unroll
  for (int k = 0; k < PER; k += 4) load4(p + k, x + k);
}

// fold sums v[0 .. Count-1] over Lanes lanes, Stride apart, and shares the sums out:
// lane number l of them gets sums l/Again*Own .. +Own-1, as v[0 .. Own-1], with
// Own = max(1, Count/Lanes) and Again = max(1, Lanes/Count).
template <int Count, int Lanes, int Stride> __device__ __forceinline__ void fold(float (&v)[Count], int l) {
#pragma unroll
  for (int w = Lanes / 2, half = Count / 2; w > 0; w /= 2, half /= 2) {
    if (half == 0) {
      v[0] += __shfl_xor_sync(FULL, v[0], w * Stride);
      continue;
    }
    bool upper = l & w;
#pragma unroll
    for (int i = 0; i < Count / 2; i++) {
      if (i < half) {
        float give = upper ? v[i] : v[i + half], keep = upper ? v[i + half] : v[i];
        v[i] = keep + __shfl_xor_sync(FULL, give, w * Stride);
      }
    }
  }
}

// Segments: the chunks of a row may be walked by several blocks, where there are too
// few rows and channels to fill the GPU. Kernels named _ends scan each segment from
// zero; selective_scan_chain makes of that what each segment starts with.
struct Segment {
  int from, to; // chunks
  __device__ __forceinline__ Segment(int i, int length, int tokens) {
    from = i * length;
    to = min(from + length, (tokens + CHUNK - 1) / CHUNK);
  }
};

// selective_scan_chain: for each of `size` states of each row of the batch, with
// x = first (zero where null), and over the segments in order, the last one first where
// backwards: ends, x = x, ends + decays * x. ends and decays are [B][segments][size].
extern "C" __global__ void selective_scan_chain(float *ends, const float *decays, const float *first, int segments,
                                                int size, int backwards) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float x = first ? first[(int64_t)blockIdx.y * size + i] : 0.f;
  for (int k = 0; k < segments; k++) {
    int64_t at = ((int64_t)blockIdx.y * segments + (backwards ? segments - 1 - k : k)) * size + i;
    float next = 0.f;
    if (k < segments - 1) next = ends[at] + decays[at] * x;
    ends[at] = x;
    x = next;
  }
}

#ifdef Y_T

// Inputs are the operands of a forward pass, and Strides their rows'.
struct Inputs {
  const U_T *u;
  const DT_T *dt;
  const float *dt_bias, *a_log;
  const B_T *b;
  const C_T *c;
  const float *d;
  const Z_T *z;
  int tokens, channels, u_stride, dt_stride, b_stride, c_stride, z_stride;
};

// scan walks a segment from the states h and leaves the last ones there. total is the
// sum of the time steps of the thread's channel. Without Outputs it does only that.
template <bool Outputs>
__device__ __forceinline__ void scan(const Inputs &in, Place &at, const Segment &seg, float h[TILE][PER],
                                     float rate[TILE][PER], float total[TILE], float *saved, Y_T *y, int y_stride) {
  // steps holds (delta, delta u) of each token and channel, and of the tokens done, sum_n Cm h.
  __shared__ __align__(16) float2 steps[CHUNK][CHANNELS];
  __shared__ __align__(16) float bs[CHUNK * STATES], cs[Outputs ? CHUNK * STATES : 4];
  __shared__ __align__(16) float bias[CHANNELS], skip[CHANNELS];
  int row = blockIdx.z * in.tokens;
  int chunks = (in.tokens + CHUNK - 1) / CHUNK;
  load_parameter(bias, in.dt_bias, at);
  load_parameter(skip, in.d, at);

  // The next chunk's u and dt are fetched while this one is scanned.
  Octet<U_T> u[OCTETS], next_u[OCTETS];
  Octet<DT_T> next_dt[OCTETS];
  auto fetch_chunk = [&](int chunk) {
    at.forget();
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = chunk * CHUNK + at.token(i);
      int left = at.token(i) < CHUNK && t < in.tokens ? at.left() : 0;
      fetch(next_u[i], octet_at(in.u, row + t, in.u_stride, at.octet()), left);
      fetch(next_dt[i], octet_at(in.dt, row + t, in.dt_stride, at.octet()), left);
    }
  };
  fetch_chunk(seg.from);
  __syncthreads();
  for (int chunk = seg.from; chunk < seg.to; chunk++) {
    int t0 = row + chunk * CHUNK;
    int count = min(CHUNK, in.tokens - chunk * CHUNK);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i);
      float x[8], delta[8];
      u[i] = next_u[i];
      unpack(u[i], x);
      unpack(next_dt[i], delta);
      time_steps(delta, bias + at.column(), t < count);
      if (t < CHUNK) {
        int first = t * CHANNELS + spread<8>(t, at.column());
#pragma unroll
        for (int k = 0; k < 8; k += 2)
          *(float4 *)(&steps[0][0] + (first ^ k)) = make_float4(delta[k], delta[k] * x[k], delta[k + 1], delta[k + 1] * x[k + 1]);
      }
    }
    load_matrix(bs, in.b, t0, in.b_stride, count);
    if (Outputs) load_matrix(cs, in.c, t0, in.c_stride, count);
    if (Outputs && saved) {
#pragma unroll
      for (int c = 0; c < TILE; c++)
#pragma unroll
        for (int k = 0; k < PER; k++)
          if (at.has(c, k)) saved[at.state((int64_t)blockIdx.z * chunks + chunk, c, k)] = h[c][k];
    }
    __syncthreads();

    if (chunk + 1 < seg.to) fetch_chunk(chunk + 1);
#ifdef GATED
    Octet<Z_T> z[OCTETS];
    if (Outputs) {
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i);
        fetch(z[i], octet_at(in.z, t0 + t, in.z_stride, at.octet()), t < count ? at.left() : 0);
      }
    }
#endif
    // A batch has as many tokens as a channel has threads: each gets the sum of one.
    for (int t = 0; t < count; t += LANES) {
      float sums[TILE][LANES];
#pragma unroll
      for (int i = 0; i < LANES; i++) {
        float b[PER], c[PER];
        load_states(bs + (t + i) * STATES + at.part * PER, b);
        if (Outputs) load_states(cs + (t + i) * STATES + at.part * PER, c);
#pragma unroll
        for (int j = 0; j < TILE; j++) {
          float2 s = steps[t + i][spread<8>(t + i, at.channel(j))];
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
        for (int j = 0; j < TILE; j++) steps[t + at.part][spread<8>(t + at.part, at.channel(j))].x = sums[j][0];
      }
    }
    __syncthreads();

    if (Outputs) {
      at.forget();
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i), left = t < count ? at.left() : 0;
        if (left <= 0) continue;
        float x[8], out[8], weight[8];
        unpack(u[i], x);
        load8(skip + at.column(), weight);
        int first = t * CHANNELS + spread<8>(t, at.column());
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

// selective_scan: y [B T C], and where wanted the states before each chunk, saved
// [B][chunks][N][C], and the last states, state [B][N][C]. starts [B][segments][N][C]
// are the states that the segments begin with, zeros where null. Grid: slices of the
// channels, segments of `length` chunks, rows.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b, const C_T *c,
               const float *d, const Z_T *z, const float *starts, float *saved, float *state, Y_T *y, int length,
               int tokens, int channels, int u_stride, int dt_stride, int b_stride, int c_stride, int z_stride,
               int y_stride) {
  Inputs in = {u, dt, dt_bias, a_log, b, c, d, z, tokens, channels, u_stride, dt_stride, b_stride, c_stride, z_stride};
  Place at(blockIdx.x, channels);
  Segment seg(blockIdx.y, length, tokens);
  float h[TILE][PER], rate[TILE][PER], total[TILE] = {};
  at.rates(a_log, rate);
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++)
      h[c][k] = starts && at.has(c, k) ? starts[at.state((int64_t)blockIdx.z * gridDim.y + blockIdx.y, c, k)] : 0.f;
  scan<true>(in, at, seg, h, rate, total, saved, y, y_stride);
  if (state && blockIdx.y == gridDim.y - 1) {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++)
        if (at.has(c, k)) state[at.state(blockIdx.z, c, k)] = h[c][k];
  }
}

// selective_scan_ends: the states that each segment but the last would end with had it
// begun with zeros, and what is left of those that it begins with: ends and decays
// [B][segments][N][C]. Grid: slices, segments - 1, rows.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_ends(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                    const float *d, float *ends, float *decays, int length, int tokens, int channels, int u_stride,
                    int dt_stride, int b_stride) {
  Inputs in = {u, dt, dt_bias, a_log, b, nullptr, d, nullptr, tokens, channels, u_stride, dt_stride, b_stride, 0, 0};
  Place at(blockIdx.x, channels);
  Segment seg(blockIdx.y, length, tokens);
  float h[TILE][PER] = {}, rate[TILE][PER], total[TILE] = {};
  at.rates(a_log, rate);
  scan<false>(in, at, seg, h, rate, total, nullptr, nullptr, 0);
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++) {
      int64_t i = at.state((int64_t)blockIdx.z * (gridDim.y + 1) + blockIdx.y, c, k);
      if (at.has(c, k)) ends[i] = h[c][k], decays[i] = fast_exp2(total[c] * rate[c][k]);
    }
}

#endif

#ifdef DU_T

// The backward pass goes through the chunks from the last to the first. From a saved
// state it walks a chunk and keeps the states before every GROUP tokens, then goes back
// group by group: it computes the group's states again, in registers, and sweeps back.
// A group has 16 pairs of a token and a state of the thread: GROUP is 16 / PER.

#define GROUP (16 / PER)
#define GROUPS (CHUNK / GROUP)
#define HISTORY (TILE * PER * WARP) // floats that a warp keeps of a group
#define UNROLL 4

// mma_16x8x8: D += A B, tf32 with float accumulators, one warp (PTX mma.m16n8k8). Of the
// factors the low 13 bits don't count.
__device__ __forceinline__ void mma_16x8x8(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// ChannelSums adds up values over the channels of a warp, on the tensor cores: a
// product with a matrix of ones and zeros, exact but for the accumulation. B[k][j] of
// an MMA are two values of each thread, k % 4 and j its lane's lower and upper bits, and A
// picks values 2s (k < 4) and 2s+1 (k >= 4) for rows 2s and 2s+1: after 8 of them row r
// holds value r of the group's 16, summed over 4 neighbouring lanes.
struct ChannelSums {
  uint32_t even[4], odd[4]; // rows 2s and 2s+1 of A, of this lane

  __device__ __forceinline__ ChannelSums(int lane) {
#pragma unroll
    for (int s = 0; s < 4; s++) {
      even[s] = lane / 4 == 2 * s ? 0x3f800000u : 0;
      odd[s] = lane / 4 == 2 * s + 1 ? 0x3f800000u : 0;
    }
  }

  // add adds values 2s and 2s+1 of the group's 16.
  __device__ __forceinline__ void add(float tile[4], int s, float x0, float x1) const {
    uint32_t a[4] = {s < 4 ? even[s] : 0, s < 4 ? 0 : even[s - 4], s < 4 ? odd[s] : 0, s < 4 ? 0 : odd[s - 4]};
    uint32_t b[2] = {__float_as_uint(x0), __float_as_uint(x1)};
#ifdef FAST
    mma_16x8x8(tile, a, b);
#else
    // Two products keep 21 bits of a value.
    uint32_t high[2] = {b[0] & 0xffffe000u, b[1] & 0xffffe000u};
    uint32_t low[2] = {__float_as_uint(x0 - __uint_as_float(high[0])), __float_as_uint(x1 - __uint_as_float(high[1]))};
    mma_16x8x8(tile, a, high);
    mma_16x8x8(tile, a, low);
#endif
  }

  // finish writes the group's sums: value r, token r/PER of the group and state r%PER of each
  // part, to out[token * 2*STATES + part*PER + state].
  __device__ __forceinline__ void finish(float tile[4], int lane, float *out) const {
    int r = lane / 4;
    float *low = out + r / PER * 2 * STATES + r % PER;
    float *high = out + (r + 8) / PER * 2 * STATES + (r + 8) % PER;
#if LANES == 8
    int part = lane % 4 * 2;
    low[part * PER] = tile[0], low[(part + 1) * PER] = tile[1];
    high[part * PER] = tile[2], high[(part + 1) * PER] = tile[3];
#else
    float x = tile[0] + tile[1], y = tile[2] + tile[3];
#pragma unroll
    for (int w = 1; w < 4 / LANES; w *= 2) {
      x += __shfl_xor_sync(FULL, x, w);
      y += __shfl_xor_sync(FULL, y, w);
    }
    int part = lane % 4 * LANES / 4;
    if (lane % (4 / LANES) == 0) low[part * PER] = x, high[part * PER] = y;
#endif
  }
};

// selective_scan_backward: du, ddt and dz [B T C], the block's part of dBm and dCm,
// slices [slices][B T][2][N], and of dA_log, ddt_bias and dD, rows [B*segments][N+2][C].
// lasts [B][segments][N][C] are what the tokens after a segment send back to its last
// states, zeros where null. Grid: slices of the channels, segments of `length` chunks,
// rows. du may lie where dy does.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_backward(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                        const C_T *c, const float *d, const Z_T *z, const float *saved, const DY_T *dy,
                        const float *lasts, DU_T *du, DDT_T *ddt, DZ_T *dz, float *slices, float *rows, int length,
                        int tokens, int channels, int u_stride, int dt_stride, int b_stride, int c_stride,
                        int z_stride, int dy_stride, int du_stride, int ddt_stride, int dz_stride) {
  extern __shared__ __align__(128) unsigned char arena[];
  // steps holds (delta, delta u, g, u) of each token and channel, and of the tokens done
  // (sum_n Cm h, delta sum_n dh Bm, ddelta, g). history holds the states before the groups;
  // of the groups done, the warp's parts of dBm and dCm, [GROUP][2][STATES].
  float4 *steps = (float4 *)arena;
  float *history = (float *)(steps + CHUNK * CHANNELS);
  float *bs = history + GROUPS * WARPS * HISTORY, *cs = bs + CHUNK * STATES;
  float *bias = cs + CHUNK * STATES, *skip = bias + CHANNELS;

  Place at(blockIdx.x, channels);
  Segment seg(blockIdx.y, length, tokens);
  ChannelSums sums(at.lane);
  int row = blockIdx.z * tokens;
  int chunks = (tokens + CHUNK - 1) / CHUNK;
  load_parameter(bias, dt_bias, at);
  load_parameter(skip, d, at);

  constexpr int kept = ROW_OCTETS / 2; // of the sums over tokens, after folding
  float rate[TILE][PER], dh[TILE][PER], da[TILE][PER] = {}, over_tokens[kept] = {};
  at.rates(a_log, rate);
#pragma unroll
  for (int c = 0; c < TILE; c++)
#pragma unroll
    for (int k = 0; k < PER; k++)
      dh[c][k] = lasts && at.has(c, k) ? lasts[at.state((int64_t)blockIdx.z * gridDim.y + blockIdx.y, c, k)] : 0.f;
  __syncthreads();

  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    int t0 = row + chunk * CHUNK;
    int count = min(CHUNK, tokens - chunk * CHUNK);
    float h[TILE][PER];
    at.forget();
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++)
        h[c][k] = at.has(c, k) ? saved[at.state((int64_t)blockIdx.z * chunks + chunk, c, k)] : 0.f;
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0, column = at.column();
      if (t >= CHUNK) continue;
      Octet<U_T> u8;
      Octet<DT_T> dt8;
      Octet<DY_T> dy8;
      fetch(u8, octet_at(u, t0 + t, u_stride, at.octet()), left);
      fetch(dt8, octet_at(dt, t0 + t, dt_stride, at.octet()), left);
      fetch(dy8, octet_at(dy, t0 + t, dy_stride, at.octet()), left);
      float x[8], delta[8], g[8];
#ifdef GATED
      Octet<Z_T> z8;
      float gate[8];
      fetch(z8, octet_at(z, t0 + t, z_stride, at.octet()), left);
      unpack(z8, gate);
#endif
      unpack(u8, x);
      unpack(dt8, delta);
      unpack(dy8, g);
      time_steps(delta, bias + column, t < count);
      int first = t * CHANNELS + spread<16>(t, column);
#pragma unroll
      for (int k = 0; k < 8; k++) {
#ifdef GATED
        g[k] *= gate[k] * scan_sigmoid(gate[k]);
#endif
        steps[first ^ k] = make_float4(delta[k], delta[k] * x[k], g[k], x[k]);
      }
    }
    load_matrix(bs, b, t0, b_stride, count);
    load_matrix(cs, c, t0, c_stride, count);
    __syncthreads();

    if (chunk > seg.from) {
      at.forget();
#pragma unroll
      for (int i = 0; i < OCTETS; i++) {
        int t = at.token(i) - CHUNK;
        if (t >= 0 || at.left() <= 0) continue;
        prefetch_l2(octet_at(u, t0 + t, u_stride, at.octet()));
        prefetch_l2(octet_at(dt, t0 + t, dt_stride, at.octet()));
        prefetch_l2(octet_at(dy, t0 + t, dy_stride, at.octet()));
#ifdef GATED
        prefetch_l2(octet_at(z, t0 + t, z_stride, at.octet()));
#endif
      }
    }

    auto own = [&](int t, int c) { return steps + t * CHANNELS + spread<16>(t, at.channel(c)); };
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
#pragma unroll
          for (int k = 0; k < PER; k++) h[c][k] = fmaf(fast_exp2(s.x * rate[c][k]), h[c][k], s.y * bm[k]);
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
#pragma unroll
          for (int k = 0; k < PER; k++) {
            decay[i][c][k] = fast_exp2(s.x * rate[c][k]);
            before[i + 1][c][k] = fmaf(decay[i][c][k], before[i][c][k], s.y * bm[k]);
          }
        }
      }
      __syncwarp(); // history has been read, and makes room for sums

      float ch[TILE][GROUP] = {}, db[TILE][GROUP] = {}, wa[TILE][GROUP] = {};
      float tile_b[4] = {}, tile_c[4] = {};
#pragma unroll
      for (int i = GROUP - 1; i >= 0; i--) {
        int t = j * GROUP + i;
        float bm[PER], cm[PER], xb[PER], xc[PER];
        load_states(own_b + t * STATES, bm);
        load_states(own_c + t * STATES, cm);
#pragma unroll
        for (int c = 0; c < TILE; c++) {
          float4 s = *own(t, c);
#pragma unroll
          for (int k = 0; k < PER; k++) {
            dh[c][k] = fmaf(s.z, cm[k], dh[c][k]);
            xc[k] = c ? fmaf(s.z, before[i + 1][c][k], xc[k]) : s.z * before[i + 1][c][k];
            xb[k] = c ? fmaf(dh[c][k], s.y, xb[k]) : dh[c][k] * s.y;
            ch[c][i] = fmaf(cm[k], before[i + 1][c][k], ch[c][i]);
            db[c][i] = fmaf(dh[c][k], bm[k], db[c][i]);
            dh[c][k] *= decay[i][c][k];
            float w = dh[c][k] * before[i][c][k];
            wa[c][i] = fmaf(w, rate[c][k], wa[c][i]);
            da[c][k] = fmaf(w, s.x, da[c][k]);
          }
        }
#pragma unroll
        for (int k = 0; k < PER; k += 2) {
          sums.add(tile_b, (i * PER + k) / 2, xb[k], xb[k + 1]);
          sums.add(tile_c, (i * PER + k) / 2, xc[k], xc[k + 1]);
        }
      }
      sums.finish(tile_b, at.lane, group);
      sums.finish(tile_c, at.lane, group + STATES);

#pragma unroll
      for (int c = 0; c < TILE; c++) {
        fold<GROUP, LANES, COLUMNS>(ch[c], at.part);
        fold<GROUP, LANES, COLUMNS>(db[c], at.part);
        fold<GROUP, LANES, COLUMNS>(wa[c], at.part);
      }
      __syncwarp(); // all lanes of the channel have read the group's steps
      constexpr int each = GROUP > LANES ? GROUP / LANES : 1, again = LANES > GROUP ? LANES / GROUP : 1;
      if (at.part % again == 0) {
#pragma unroll
        for (int c = 0; c < TILE; c++)
#pragma unroll
          for (int i = 0; i < each; i++) {
            float4 *step = own(j * GROUP + at.part / again * each + i, c);
            float4 s = *step;
            *step = make_float4(ch[c][i], s.x * db[c][i], fmaf(s.w, db[c][i], LN2 * wa[c][i]), s.z);
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
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0, column = at.column();
      if (left <= 0) continue;
      float x[8], raw[8], out_u[8], out_dt[8], shift[8], weight[8];
      load8(bias + column, shift);
      load8(skip + column, weight);
      int first = t * CHANNELS + spread<16>(t, column);
      unpack(last_u[i], x);
      unpack(last_dt[i], raw);
#ifdef GATED
      float gate[8], up[8], out_z[8];
      unpack(last_dy[i], up);
      unpack(last_z[i], gate);
#endif
#pragma unroll
      for (int k = 0; k < 8; k++) {
        float4 s = steps[first ^ k];
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
    for (int i = at.thread; i < count * 2 * STATES; i += THREADS) {
      int t = i / (2 * STATES), matrix = i / STATES % 2, n = i % STATES;
      if (n >= N) continue;
      const float *part = history + t / GROUP * WARPS * HISTORY + (t % GROUP * 2 + matrix) * STATES + n;
      float total = part[0];
#pragma unroll
      for (int w = 1; w < WARPS; w++) total += part[w * HISTORY];
      slice[(t * 2 + matrix) * N + n] = total;
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

// selective_scan_backward_ends: what each segment but the first sends back to the states
// before it when nothing comes from after it, and how much of what comes from there it
// passes on: ends and decays [B][segments][N][C]. Grid: slices, segments - 1, rows.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_backward_ends(const DT_T *dt, const float *dt_bias, const float *a_log, const C_T *c, const Z_T *z,
                             const DY_T *dy, float *ends, float *decays, int length, int tokens, int channels,
                             int dt_stride, int c_stride, int z_stride, int dy_stride) {
  __shared__ __align__(16) float2 steps[CHUNK][CHANNELS]; // (delta, g)
  __shared__ __align__(16) float cs[CHUNK * STATES];
  __shared__ __align__(16) float bias[CHANNELS];
  Place at(blockIdx.x, channels);
  Segment seg(blockIdx.y + 1, length, tokens);
  int row = blockIdx.z * tokens;
  load_parameter(bias, dt_bias, at);
  float rate[TILE][PER], dh[TILE][PER] = {}, total[TILE] = {};
  at.rates(a_log, rate);
  __syncthreads();
  for (int chunk = seg.to - 1; chunk >= seg.from; chunk--) {
    int t0 = row + chunk * CHUNK;
    int count = min(CHUNK, tokens - chunk * CHUNK);
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = t < count ? at.left() : 0, column = at.column();
      if (t >= CHUNK) continue;
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
      time_steps(delta, bias + column, t < count);
#pragma unroll
      for (int k = 0; k < 8; k++) {
#ifdef GATED
        g[k] *= gate[k] * scan_sigmoid(gate[k]);
#endif
        steps[t][spread<8>(t, column + k)] = make_float2(delta[k], g[k]);
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
          float2 s = steps[t + i][spread<8>(t + i, at.channel(c))];
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
      int64_t i = at.state((int64_t)blockIdx.z * (gridDim.y + 1) + blockIdx.y + 1, c, k);
      if (at.has(c, k)) ends[i] = dh[c][k], decays[i] = fast_exp2(total[c] * rate[c][k]);
    }
}

// selective_scan_sum_slices adds up slices [n][tokens][2][N] into dBm and dCm.
extern "C" __global__ void selective_scan_sum_slices(const float *slices, DB_T *db, DC_T *dc, int n, int tokens,
                                                     int db_stride, int dc_stride) {
#if N % 4 == 0
  const int width = 4;
#else
  const int width = 1;
#endif
  int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * width, size = (int64_t)tokens * 2 * N;
  if (i >= size) return;
  float sum[width] = {};
#pragma unroll 8
  for (int s = 0; s < n; s++) {
    float x[width];
#if N % 4 == 0
    load4(slices + s * size + i, x);
#else
    x[0] = slices[s * size + i];
#endif
#pragma unroll
    for (int k = 0; k < width; k++) sum[k] += x[k];
  }
  int64_t t = i / (2 * N);
  int at = i % (2 * N);
#pragma unroll
  for (int k = 0; k < width; k++) {
    if (at < N) store(db + t * db_stride + at + k, sum[k]);
    else store(dc + t * dc_stride + at - N + k, sum[k]);
  }
}

// selective_scan_sum_rows adds up rows [n][N+2][C] into dA_log, ddt_bias and dD.
extern "C" __global__ void selective_scan_sum_rows(const float *rows, float *da_log, float *ddt_bias, float *dd, int n,
                                                   int channels) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, size = (N + 2) * channels;
  if (i >= size) return;
  float sum = 0.f;
#pragma unroll 4
  for (int r = 0; r < n; r++) sum += rows[(int64_t)r * size + i];
  int state = i / channels, c = i % channels;
  if (state < N) da_log[(int64_t)c * N + state] = sum;
  else if (state == N) ddt_bias[c] = sum;
  else dd[c] = sum;
}

#endif
