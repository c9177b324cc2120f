// What the backward kernels do once per token and channel.

// Operands are the input tensors [B T C].
struct Operands {
  const U_T *u;
  const DT_T *dt;
  const DY_T *dy;
  const Z_T *z;
  int u_stride, dt_stride, dy_stride, z_stride;
};

// Gradients are the output tensors [B T C].
struct Gradients {
  DU_T *u;
  DDT_T *dt;
  DZ_T *z;
  int u_stride, dt_stride, z_stride;
  // put stores an octet of each in a row.
  __device__ __forceinline__ void put(const Place &at, int row, int left, const float du[8], const float ddt[8], const float dz[8]) const {
    ::put(octet_at(u, row, u_stride, at.octet()), du, left);
    ::put(octet_at(dt, row, dt_stride, at.octet()), ddt, left);
#ifdef GATED
    ::put(octet_at(z, row, z_stride, at.octet()), dz, left);
#endif
  }
};

// Octets are a thread's share of the operands in a chunk.
struct Octets {
  Octet<U_T> u[OCTETS];
  Octet<DT_T> dt[OCTETS];
  Octet<DY_T> dy[OCTETS];
#ifdef GATED
  Octet<Z_T> z[OCTETS];
#endif
  // ask issues all loads of the chunk of `count` tokens that starts at row t0, before any of the
  // values is used.
  __device__ __forceinline__ void ask(const Operands &in, const Place &at, int t0, int count) {
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
      int t = at.token(i), left = within(t, count) ? at.left() : 0;
      fetch(u[i], octet_at(in.u, t0 + t, in.u_stride, at.octet()), left);
      fetch(dt[i], octet_at(in.dt, t0 + t, in.dt_stride, at.octet()), left);
      fetch(dy[i], octet_at(in.dy, t0 + t, in.dy_stride, at.octet()), left);
#ifdef GATED
      fetch(z[i], octet_at(in.z, t0 + t, in.z_stride, at.octet()), left);
#endif
    }
  }
};

__device__ __forceinline__ void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// prefetch_chunk has the chunk that begins in row t0, and its states, the i-th, brought to the
// second-level cache.
__device__ __forceinline__ void prefetch_chunk(const Operands &in, const Place &at, const H_T *saved, int64_t i, int t0) {
#pragma unroll
  for (int i = 0; i < OCTETS; i++) {
    int t = at.token(i);
    if (!within(t, CHUNK) || at.left() <= 0) continue;
    prefetch_l2(octet_at(in.u, t0 + t, in.u_stride, at.octet()));
    prefetch_l2(octet_at(in.dt, t0 + t, in.dt_stride, at.octet()));
    prefetch_l2(octet_at(in.dy, t0 + t, in.dy_stride, at.octet()));
#ifdef GATED
    prefetch_l2(octet_at(in.z, t0 + t, in.z_stride, at.octet()));
#endif
  }
  // A cache line holds `line` channels of a state.
  constexpr int line = 128 / sizeof(H_T), lines = CHANNELS / line < 1 ? 1 : CHANNELS / line;
  int channel = at.first + at.thread % lines * line;
  if (at.thread < N * lines && channel < at.channels) prefetch_l2(saved + (i * N + at.thread / lines) * at.channels + channel);
}

// step_of returns the step that the states see, given a time step that is negative where they are
// forgotten.
__device__ __forceinline__ float step_of(float x) {
#ifdef BY_DOCUMENT
  return __float_as_int(x) < 0 ? FORGET : x;
#else
  return x;
#endif
}

// TokenSums are a thread's partial sums over tokens of ddt and of g u.
struct TokenSums {
  static constexpr int kept = ROW_OCTETS / 2; // after folding
  float sums[kept] = {};
  // add adds the 8 channels of an octet, for both sums, over the tokens of the warp's threads.
  __device__ __forceinline__ void add(float (&x)[16], const Place &at) {
    fold<16, WARP / ROW_OCTETS, ROW_OCTETS>(x, at.lane / ROW_OCTETS);
#pragma unroll
    for (int i = 0; i < kept; i++) sums[i] += x[i];
  }
  // store writes the block's sums to rows N and N+1 of a [N+2][C]. shared has room for
  // 2*CHANNELS*WARPS floats.
  __device__ __forceinline__ void store(float *rows, float *shared, const Place &at) const {
    // Lane l of a warp has `kept` sums, from l/ROW_OCTETS*kept on, of the 16 of octet l%ROW_OCTETS.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kept; i++)
      shared[(at.warp * ROW_OCTETS + at.lane % ROW_OCTETS) * 16 + at.lane / ROW_OCTETS * kept + i] = sums[i];
    __syncthreads();
    for (int i = at.thread; i < 2 * CHANNELS; i += THREADS) {
      int channel = at.first + i / 16 * 8 + i % 8;
      if (channel >= at.channels) continue;
      float total = 0.f;
      for (int w = 0; w < WARPS; w++) total += shared[w * ROW_OCTETS * 16 + i];
      rows[(int64_t)(N + i / 8 % 2) * at.channels + channel] = total;
    }
  }
};
