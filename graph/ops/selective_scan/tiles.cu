// A block handles CHANNELS neighbouring channels of one row of the batch and walks a segment of its
// tokens in order, CHUNK at a time. LANES threads share a channel. Each holds PER of its states,
// padded with zeros to STATES, and the same states of TILE channels, so that it reads Bm and Cm
// once for all of them. What the states share (time step, input, gate) is computed once per chunk,
// by threads that handle 8 neighbouring channels of a token: an octet.
//
// Macros: N; CHUNK tokens between saved states; PER, LANES, TILE, CHANNELS; RESIDENT blocks per SM,
// and RESIDENT_ENDS for the kernels that compute the ends of PIECES of a segment; GATED if there is a
// z; WIDE if octets, and WIDE_BC if 4 neighbours of Bm and Cm, can be accessed at once; WHOLE if all
// chunks have CHUNK tokens and all blocks CHANNELS channels; FAST if an operand is bf16; BY_DOCUMENT
// if states are forgotten before the first token of a document; the types H_T of saved states, U_T,
// DT_T, B_T, C_T, Z_T, and Y_T of the forward pass, or DY_T, DU_T, DDT_T, DB_T, DC_T, DZ_T, and
// SLICE_T of the slices' partial dBm and dCm, of the backward pass.

#define STATES (LANES * PER)
#define COLUMNS (WARP / LANES) // neighbouring channels across a warp's lanes
#define WARP_CHANNELS (COLUMNS * TILE)
#define THREADS (CHANNELS / TILE * LANES)
#define WARPS (THREADS / WARP)
#define ROW_OCTETS (CHANNELS / 8)
#define OCTETS ((CHUNK * ROW_OCTETS + THREADS - 1) / THREADS) // per thread

#define LN2 0.6931471805599453f

// Element-wise functions.

// time_step is softplus.
__device__ __forceinline__ float time_step(float x) {
#ifdef FAST
  // log(1 + e) as e times a polynomial, with a relative error of 1e-5.
  float e = fast_exp(-fabsf(x)), p = fmaf(e, -0.0238691486f, 0.101222277f);
  p = fmaf(p, e, -0.210048682f), p = fmaf(p, e, 0.325206677f), p = fmaf(p, e, -0.499361364f), p = fmaf(p, e, 0.999991598f);
  return fmaf(p, e, fmaxf(x, 0.f));
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

// By document, the step before a document's first token is so long that nothing remains of the
// earlier states: with a rate no closer to 0 than `slowest` allows, exp gives 0. (At such a slow
// rate exp is 1 for any other step.)

#define FORGET 1e37f

__device__ __forceinline__ float slowest(float rate) {
#ifdef BY_DOCUMENT
  return fminf(rate, -1e-30f);
#else
  return rate;
#endif
}

// begins reports whether token t of a row exists and is the first of a document. documents[t] is
// the index at which the document of token t begins.
__device__ __forceinline__ bool begins(const int *documents, int t, bool there) {
#ifdef BY_DOCUMENT
  return there && documents[t] == t;
#else
  return false;
#endif
}

// tokens_of returns the number of tokens in chunk i of a row.
__device__ __forceinline__ int tokens_of(int i, int tokens) {
#ifdef WHOLE
  return CHUNK;
#else
  return min(CHUNK, tokens - i * CHUNK);
#endif
}

// within reports whether token t of a chunk is one of its `count` tokens.
__device__ __forceinline__ bool within(int t, int count) {
#ifdef WHOLE
  return OCTETS * THREADS == CHUNK * ROW_OCTETS || t < CHUNK;
#else
  return t < count;
#endif
}

// Octets. `left` of the 8 channels exist: none if it is 0 or less.

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

// octet_at returns a pointer to element (row, column) of a tensor with rows `stride` elements
// apart.
template <typename Type> __device__ __forceinline__ Type *octet_at(Type *p, int row, int stride, int column) {
  // In plain C++ this would be a 64-bit multiplication.
  Type *q;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(q) : "r"(row), "r"(stride * (int)sizeof(Type)), "l"(p + column));
  __builtin_assume(__isGlobal(q));
  return q;
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

// Place is the position of a thread's work.
struct Place {
  int thread, lane, warp;
  int first;    // the block's first channel
  int own;      // the thread's first channel within the block; the next is COLUMNS further
  int part;     // its states are part*PER .. part*PER+PER-1
  int channels; // of the tensors

  __device__ __forceinline__ Place(int block, int channels) : channels(channels) {
    thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    first = block * CHANNELS;
#if defined(BACKWARD_CU) || defined(BACKWARD_MIXED_CU)
    own = warp * WARP_CHANNELS + lane / LANES, part = lane % LANES;
#else
    own = warp * WARP_CHANNELS + lane % COLUMNS, part = lane / COLUMNS;
#endif
  }
  // The thread's octet i of OCTETS: its token in the chunk (CHUNK or more means none), its first
  // channel within the block, and how many of its channels exist.
  __device__ __forceinline__ int token(int i) const { return (i * THREADS + (unsigned)thread) / ROW_OCTETS; }
  __device__ __forceinline__ int column() const { return (unsigned)thread % ROW_OCTETS * 8; }
  __device__ __forceinline__ int left() const {
#ifdef WHOLE
    return 8;
#else
    return channels - first - column();
#endif
  }
  __device__ __forceinline__ int octet() const { return first + column(); } // its first channel in the tensors
  // forget makes the compiler recompute what depends on `thread`, instead of keeping addresses in
  // registers throughout the loops over tokens.
  __device__ __forceinline__ void forget() { asm volatile("" : "+r"(thread)); }
  __device__ __forceinline__ int channel(int c) const { return own + c * COLUMNS; }
  // state is the index of the thread's state k of its channel c in the i-th [N C] of a [.. N C];
  // has reports whether it exists.
  __device__ __forceinline__ bool has(int c, int k) const {
    return first + channel(c) < channels && part * PER + k < N;
  }
  __device__ __forceinline__ int64_t state(int64_t i, int c, int k) const {
    return (i * N + part * PER + k) * channels + first + channel(c);
  }
  // load loads the thread's states of the i-th [N C], zeros where there is none.
  template <typename Type> __device__ __forceinline__ void load(float h[TILE][PER], const Type *states, int64_t i) const {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++) h[c][k] = states && has(c, k) ? ::load(states + state(i, c, k)) : 0.f;
  }
  // rates loads A log2(e), so that exp(delta A) is a power of 2.
  __device__ __forceinline__ void rates(const float *a_log, float rate[TILE][PER]) const {
#pragma unroll
    for (int c = 0; c < TILE; c++)
#pragma unroll
      for (int k = 0; k < PER; k++)
        rate[c][k] = slowest(has(c, k) ? -LOG2E * expf(a_log[(int64_t)(first + channel(c)) * N + part * PER + k]) : 0.f);
  }
};

// Rows of shared memory have 8 bytes per channel. spread is the position of a token's channel in
// its row, chosen so that neighbouring threads access the same position of their octets in
// different banks. Position k of an octet is at spread(token, first channel of the octet) ^ k.
__device__ __forceinline__ int spread(int token, int channel) {
  return channel ^ ((token * ROW_OCTETS + channel / 8) & 6);
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

// time_steps computes the steps of an octet from dt. A token that does not exist has step 0, which
// leaves the states unchanged.
__device__ __forceinline__ void time_steps(float x[8], const float bias[8], bool there) {
#pragma unroll
  for (int k = 0; k < 8; k++) {
    x[k] = time_step(x[k] + bias[k]);
    x[k] = there ? x[k] : 0.f;
  }
}

// load_parameter copies the block's part of a [C] to shared [CHANNELS].
__device__ __forceinline__ void load_parameter(float *shared, const float *v, const Place &at) {
  for (int i = threadIdx.x; i < CHANNELS; i += THREADS)
    shared[i] = at.first + i < at.channels ? v[at.first + i] : 0.f;
}

// load_states loads PER neighbouring elements of a row in shared memory.
__device__ __forceinline__ void load_states(const float *p, float x[PER]) {
#pragma unroll
  for (int k = 0; k < PER; k += 4) load4(p + k, x + k);
}

// fold sums v[0 .. Count-1] over Lanes lanes that are Stride apart, and distributes the sums: lane
// number l gets sums l/Again*Own .. +Own-1, as v[0 .. Own-1], with Own = max(1, Count/Lanes) and
// Again = max(1, Lanes/Count).
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

// Segments: several blocks may share the chunks of a row where there are too few rows and channels
// to fill the GPU. Kernels named _ends scan each segment from zero, in PIECES pieces with a block
// each; selective_scan_chain turns their results into the states at the start of each piece.
struct Segment {
  int from, to; // chunks
  __device__ __forceinline__ Segment(int i, int length, int tokens) {
    from = i * length;
    to = min(from + length, (tokens + CHUNK - 1) / CHUNK);
  }
  // piece is the segment's i-th.
  __device__ __forceinline__ Segment piece(int i) const {
    Segment p = *this;
    int length = (to - from + PIECES - 1) / PIECES;
    p.from = min(from + i * length, to), p.to = min(p.from + length, to);
    return p;
  }
};
