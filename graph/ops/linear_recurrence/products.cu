// A tile of TILE x TILE of a product of A [lines depth] and B [depth lines]. A factor's element
// (line, k) is at p[line*stride + k], or at p[k*stride + line] if ACROSS.
constexpr int TILE = 64;

template <typename Type, bool ACROSS> struct Factor {
  const Type *p;
  int64_t stride;
  int lines, depth;
};

// Staged is STEP of a factor's depth in shared memory. In float32 it is [STEP][TILE] for any
// factor. Otherwise it has the factor's layout, [TILE][STEP] or across, and ldmatrix transposes it.
#ifdef FAST
constexpr int STEP = 32;
constexpr int PITCH_ALONG = STEP + 8, PITCH_ACROSS = TILE + 8; // 8 rows hit different banks
struct __align__(16) Staged {
  bf16 x[TILE * PITCH_ALONG];
};
static_assert(STEP * PITCH_ACROSS <= TILE * PITCH_ALONG, "a tile across fits");
#else
constexpr int STEP = 16;
struct __align__(16) Staged {
  float x[STEP][TILE + 4];
};
#endif

constexpr int QUADS = TILE * STEP / 4 / 256; // per thread, of 4 adjacent elements

// place is where in [TILE STEP] a thread's quad begins.
template <bool ACROSS> __device__ __forceinline__ void place(int quad, int &line, int &k) {
  int e = threadIdx.x + quad * 256;
  line = ACROSS ? e % (TILE / 4) * 4 : e / (STEP / 4), k = ACROSS ? e / (TILE / 4) : e % (STEP / 4) * 4;
}

// fetch loads a thread's quads of a tile, with zeros beyond the factor.
template <bool WIDE, typename Type, bool ACROSS>
__device__ __forceinline__ void fetch(Factor<Type, ACROSS> f, int first, int depth, float x[QUADS][4]) {
#pragma unroll
  for (int quad = 0; quad < QUADS; quad++) {
    int line, k;
    place<ACROSS>(quad, line, k);
    line += first, k += depth;
    const Type *p = f.p + (ACROSS ? k * f.stride + line : line * f.stride + k);
    int left = (ACROSS ? k < f.depth : line < f.lines) ? (ACROSS ? f.lines - line : f.depth - k) : 0;
    if (WIDE && left > 0) {
      load4(p, x[quad]);
    } else {
#pragma unroll
      for (int c = 0; c < 4; c++) x[quad][c] = c < left ? to_float(p[c]) : 0.f;
    }
  }
}

// wide reports whether a factor can be loaded in quads.
template <typename Type, bool ACROSS> __device__ __forceinline__ bool wide(Factor<Type, ACROSS> f) {
  return aligned<4>(f.p, f.stride) && (ACROSS ? f.lines : f.depth) % 4 == 0;
}

template <typename Type, bool ACROSS>
__device__ __forceinline__ void fetch_any(Factor<Type, ACROSS> f, int first, int depth, float x[QUADS][4]) {
  if (wide(f)) fetch<true>(f, first, depth, x);
  else fetch<false>(f, first, depth, x);
}

template <bool ACROSS> __device__ __forceinline__ void stage(Staged &to, const float x[QUADS][4]) {
#pragma unroll
  for (int quad = 0; quad < QUADS; quad++) {
    int line, k;
    place<ACROSS>(quad, line, k);
#ifdef FAST
    store4(to.x + (ACROSS ? k * PITCH_ACROSS + line : line * PITCH_ALONG + k), x[quad]);
#else
    if (ACROSS) {
      store4(&to.x[k][line], x[quad]);
    } else {
#pragma unroll
      for (int c = 0; c < 4; c++) to.x[k + c][line] = x[quad][c];
    }
#endif
  }
}

struct Staging {
  Staged a, b;
};
__device__ __forceinline__ Staging &staging() {
  __shared__ Staging shared;
  return shared;
}

// Tile is a tile of the product: 16 elements for each of a block's 256 threads.
struct Tile {
  int line, column; // the tile's first
  float sum[4][4];

  __device__ __forceinline__ Tile(int line, int column) : line(line), column(column), sum{} {}

  // add adds A B.
  template <typename A, bool ACROSS_A, typename B, bool ACROSS_B>
  __device__ __forceinline__ void add(Factor<A, ACROSS_A> a, Factor<B, ACROSS_B> b) {
    Staging &staged = staging();
    float x[QUADS][4], y[QUADS][4];
    int depth = min(a.depth, b.depth);
    fetch_any(a, line, 0, x), fetch_any(b, column, 0, y);
    for (int k = 0; k < depth; k += STEP) {
      __syncthreads();
      stage<ACROSS_A>(staged.a, x), stage<ACROSS_B>(staged.b, y);
      __syncthreads();
      if (k + STEP < depth) fetch_any(a, line, k + STEP, x), fetch_any(b, column, k + STEP, y);
      multiply<ACROSS_A, ACROSS_B>(staged.a, staged.b);
    }
  }

#ifdef FAST
  // A warp handles 16 lines and 32 columns, in the register layout of mma.m16n8k16.
  __device__ __forceinline__ int line_at(int, int c) const {
    return line + threadIdx.x / WARP / 2 * 16 + threadIdx.x % WARP / 4 + c / 2 * 8;
  }
  __device__ __forceinline__ int column_at(int r, int c) const {
    return column + threadIdx.x / WARP % 2 * 32 + r * 8 + threadIdx.x % 4 * 2 + c % 2;
  }

  // quarters loads the four 8x8 tiles of 16 lines and 16 of the depth. The second one is that of
  // the later lines for A, and of the later depth for B.
  template <bool ACROSS, bool LINES_FIRST> static __device__ __forceinline__ void quarters(uint32_t r[4], const Staged &s, int line, int k) {
    int lane = threadIdx.x % WARP, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    line += LINES_FIRST ? second : third, k += LINES_FIRST ? third : second;
    if (ACROSS) ldmatrix4_trans(r, s.x + (k + lane % 8) * PITCH_ACROSS + line);
    else ldmatrix4(r, s.x + (line + lane % 8) * PITCH_ALONG + k);
  }

  template <bool ACROSS_A, bool ACROSS_B> __device__ __forceinline__ void multiply(const Staged &a, const Staged &b) {
    int warp = threadIdx.x / WARP;
#pragma unroll
    for (int k = 0; k < STEP; k += 16) {
      uint32_t x[4], y[4];
      quarters<ACROSS_A, true>(x, a, warp / 2 * 16, k);
#pragma unroll
      for (int r = 0; r < 4; r += 2) {
        quarters<ACROSS_B, false>(y, b, warp % 2 * 32 + r * 8, k);
        mma_16x8x16(sum[r], x, y);
        mma_16x8x16(sum[r + 1], x, y + 2);
      }
    }
  }
#else
  __device__ __forceinline__ int line_at(int r, int) const { return line + threadIdx.x / 16 * 4 + r; }
  __device__ __forceinline__ int column_at(int, int c) const { return column + threadIdx.x % 16 * 4 + c; }

  template <bool, bool> __device__ __forceinline__ void multiply(const Staged &a, const Staged &b) {
#pragma unroll
    for (int k = 0; k < STEP; k++) {
      float x[4], y[4];
      load4(&a.x[k][threadIdx.x / 16 * 4], x), load4(&b.x[k][threadIdx.x % 16 * 4], y);
#pragma unroll
      for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum[r][c] += x[r] * y[c];
    }
  }
#endif

  // each calls f(line, column, element) for the elements in [lines columns].
  template <typename Function> __device__ __forceinline__ void each(int lines, int columns, Function f) const {
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
      for (int c = 0; c < 4; c++)
        if (line_at(r, c) < lines && column_at(r, c) < columns) f(line_at(r, c), column_at(r, c), sum[r][c]);
  }
};
