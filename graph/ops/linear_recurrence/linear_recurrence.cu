// The recurrence a chunk at a time, forward and backward: README.md has the formulas.
// Chunks are all computed at once, but for the chain of their states. A chunk's arrays
// in the workspace have CHUNK rows, zeros beyond the text's end. Pointers and strides
// are in elements; a sequence is a head of a row of the batch.

constexpr int LEVELS = 6; // of halving
static_assert(CHUNK == 1 << LEVELS, "a chunk is halved down to single tokens");

#ifdef FAST
__device__ __forceinline__ float decay(float log) { return fast_exp(log); }
#else
__device__ __forceinline__ float decay(float log) { return expf(log); }
#endif

// Span is a block's chunk.
struct Span {
  int64_t index;      // of the chunks in the workspace
  int64_t row;        // the first of its rows in [B T]
  int head, first, n; // n tokens of the text, from first on
};

__device__ __forceinline__ Span span_of_block(int sequence, int tokens, int heads) {
  int chunks = (tokens + CHUNK - 1) / CHUNK, first = blockIdx.x % chunks * CHUNK;
  sequence += blockIdx.x / chunks;
  return {(int64_t)blockIdx.x, (int64_t)(sequence / heads) * tokens + first, sequence % heads, first, min(CHUNK, tokens - first)};
}

// Gates are the log decays of a span's channel. By document a document's first token has one
// that leaves nothing of what came before, so that no more is to be done for it: sums over
// what crosses it, such as its own gradient, are of zeros. start [B T] is where each token's
// document begins.
#define NOTHING_LEFT -1e30f

struct Borders {
#ifdef BY_DOCUMENT
  const int *start;
  int first;
  __device__ __forceinline__ Borders(const int *start, Span s) : start(start + s.row), first(s.first) {}
  __device__ __forceinline__ bool operator[](int t) const { return start[t] == first + t; }
#else
  __device__ __forceinline__ Borders(const int *, Span) {}
  __device__ __forceinline__ bool operator[](int) const { return false; }
#endif
};

#ifdef LOG_DECAYS
__constant__ float log_decays[] = {LOG_DECAYS};
struct Gates {
  float fixed;
  int n;
  Borders border;
  __device__ __forceinline__ Gates(const float *, int64_t, const int *start, Span s, int, int)
      : fixed(log_decays[s.head]), n(s.n), border(start, s) {}
  __device__ __forceinline__ float operator[](int t) const { return t >= n ? 0.f : border[t] ? NOTHING_LEFT : fixed; }
};
#else
struct Gates {
  const float *p;
  int64_t stride;
  int n;
  Borders border;
  __device__ __forceinline__ Gates(const float *g, int64_t stride, const int *start, Span s, int keys, int i)
      : p(g + s.row * stride + (int64_t)s.head * keys + i), stride(stride), n(i < keys ? s.n : 0), border(start, s) {}
  __device__ __forceinline__ float operator[](int t) const { return t >= n ? 0.f : border[t] ? NOTHING_LEFT : p[t * stride]; }
};
#endif

// Channel is column i of a span's queries or keys, zeros where there are none.
template <typename Type> struct Channel {
  const Type *p;
  int64_t stride;
  int n;
  __device__ __forceinline__ Channel(const Type *x, int64_t stride, Span s, int keys, int i)
      : p(x + s.row * stride + (int64_t)s.head * keys + i), stride(stride), n(i < keys ? s.n : 0) {}
  __device__ __forceinline__ float operator[](int t) const { return t < n ? to_float(p[t * stride]) : 0.f; }
};

// Within a chunk: factors[l][t] is, for the halves of 1 << l tokens, the key of a token
// of an earlier half decayed to the half's end, or the query of one of a later half
// decayed from its start. Tokens s < t meet at the highest bit in which they differ. In
// the last two are queries and keys as they are, for s = t.
constexpr int SLICE = WARP; // channels at once
constexpr int PITCH = SLICE + 4;

// A fourth row is followed by a gap, so that threads which read 4 rows each hit
// different banks.
__device__ __forceinline__ int factor_at(int level, int t) { return level * (CHUNK * PITCH + CHUNK) + t * PITCH + t / 4 * 4; }

__device__ __forceinline__ void add_pair(float &sum, const float *x, const float *y) {
#pragma unroll
  for (int i = 0; i < 4; i++) sum += x[i] * y[i];
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_within(const Q_T *q, const K_T *k, const float *g, float *scores, float *reads, float *writes, float *total,
                         int64_t stride_q, int64_t stride_k, int64_t stride_g, const int *start, int sequence, int tokens, int heads, int keys,
                         float scale) {
  extern __shared__ float factors[];
  Span s = span_of_block(sequence, tokens, heads);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  scores += s.index * CHUNK * CHUNK, reads += s.index * CHUNK * keys, writes += s.index * CHUNK * keys, total += s.index * keys;

  // The first 240 threads have a tile of 4x4 scores below the diagonal, and a half of
  // the channels; the others have a tile on the diagonal.
  constexpr int BELOW = CHUNK / 4 * (CHUNK / 4 - 1) / 2;
  static_assert(2 * BELOW + CHUNK / 4 == 256, "a thread for each tile");
  int tile = threadIdx.x % BELOW, part = threadIdx.x / BELOW, to = 1, from;
  bool diagonal = part == 2;
  if (diagonal) {
    to = from = tile;
  } else {
    while (tile >= to) tile -= to++;
    from = tile;
  }
  float sum[4][4] = {};

  for (int first = 0; first < keys; first += SLICE) {
    int i = first + lane;
    Channel<Q_T> query(q, stride_q, s, keys, i);
    Channel<K_T> key(k, stride_k, s, keys, i);
    Gates gate(g, stride_g, start, s, keys, i);
    __syncthreads();
    if (warp < LEVELS) {
      int half = 1 << warp;
      float log = 0.f;
#pragma unroll 8
      for (int u = 0; u < CHUNK; u++) {
        int at = u % (2 * half);
        bool later = at >= half;
        int t = later ? u : u - at + half - 1 - at; // the earlier half backwards
        if (at == 0 || at == half) log = 0.f;
        float x = later ? query[t] * scale : key[t], by = gate[t];
        if (later) log += by;
        factors[factor_at(warp, t) + lane] = x * decay(log);
        if (!later) log += by;
      }
    } else if (warp == LEVELS) {
      float log = 0.f;
#pragma unroll 8
      for (int t = 0; t < CHUNK; t++) {
        float x = query[t] * scale;
        log += gate[t];
        factors[factor_at(warp, t) + lane] = x;
        if (i < keys) reads[(int64_t)t * keys + i] = x * decay(log);
      }
      if (i < keys) total[i] = decay(log);
    } else {
      float log = 0.f;
#pragma unroll 8
      for (int t = CHUNK - 1; t >= 0; t--) {
        float x = key[t];
        factors[factor_at(warp, t) + lane] = x;
        if (i < keys) writes[(int64_t)t * keys + i] = x * decay(log);
        log += gate[t];
      }
    }
    __syncthreads();
    if (!diagonal) {
      const float *f = factors + factor_at(31 - __clz(to ^ from) + 2, 0) + part * (SLICE / 2);
      const float *x = f + to * 4 * PITCH + to * 4, *y = f + from * 4 * PITCH + from * 4;
#pragma unroll
      for (int c = 0; c < SLICE / 2; c += 4) {
        float a[4][4], b[4][4];
#pragma unroll
        for (int r = 0; r < 4; r++) load4(x + r * PITCH + c, a[r]), load4(y + r * PITCH + c, b[r]);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
          for (int l = 0; l < 4; l++) add_pair(sum[r][l], a[r], b[l]);
      }
    } else {
#pragma unroll
      for (int c = 0; c < SLICE; c += 4) {
        float a[4][4], b[4][4];
        auto rows = [&](int level, float x[4][4]) {
#pragma unroll
          for (int r = 0; r < 4; r++) load4(factors + factor_at(level, 4 * to + r) + c, x[r]);
        };
        rows(LEVELS, a), rows(LEVELS + 1, b);
#pragma unroll
        for (int r = 0; r < 4; r++) add_pair(sum[r][r], a[r], b[r]);
        rows(0, a), rows(1, b);
        add_pair(sum[1][0], a[1], a[0]), add_pair(sum[3][2], a[3], a[2]);
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
          for (int l = 0; l < 2; l++) add_pair(sum[2 + r][l], b[2 + r], b[l]);
      }
    }
  }

  __syncthreads();
  float *other = factors + (to * (CHUNK / 4) + from) * 16;
  if (part == 1) {
#pragma unroll
    for (int e = 0; e < 16; e++) other[e] = sum[e / 4][e % 4];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 4; r++)
#pragma unroll
    for (int l = 0; l < 4; l++) {
      if (part == 1) scores[(4 * from + r) * CHUNK + 4 * to + l] = 0.f; // above the diagonal
      if (part != 1) scores[(4 * to + r) * CHUNK + 4 * from + l] = sum[r][l] + (part == 0 ? other[4 * r + l] : 0.f);
    }
}

// A tile of TILE x TILE of a product of A [lines depth] and B [depth lines]. A factor's
// element (line, k) is at p[line*stride + k], or at p[k*stride + line] where ACROSS.
constexpr int TILE = 64;

template <typename Type, bool ACROSS> struct Factor {
  const Type *p;
  int64_t stride;
  int lines, depth;
};

// Staged is STEP of a factor's depth in shared memory. In float32 that is [STEP][TILE]
// whatever the factor. Else it lies as the factor does, [TILE][STEP] or across, and
// ldmatrix turns it.
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

constexpr int QUADS = TILE * STEP / 4 / 256; // a thread's, of 4 elements that lie next to each other

// place is where in [TILE STEP] a thread's quad begins.
template <bool ACROSS> __device__ __forceinline__ void place(int quad, int &line, int &k) {
  int e = threadIdx.x + quad * 256;
  line = ACROSS ? e % (TILE / 4) * 4 : e / (STEP / 4), k = ACROSS ? e / (TILE / 4) : e % (STEP / 4) * 4;
}

// fetch loads a thread's quads of a tile, zeros beyond the factor.
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

// wide reports whether a factor can be loaded by quads.
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

// Tile is a block's 256 threads' 16 elements each.
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
  // A warp has 16 lines and 32 columns, which mma.m16n8k16 spreads over its threads.
  __device__ __forceinline__ int line_at(int, int c) const {
    return line + threadIdx.x / WARP / 2 * 16 + threadIdx.x % WARP / 4 + c / 2 * 8;
  }
  __device__ __forceinline__ int column_at(int r, int c) const {
    return column + threadIdx.x / WARP % 2 * 32 + r * 8 + threadIdx.x % 4 * 2 + c % 2;
  }

  // quarters loads the four 8x8 tiles of 16 lines and 16 of the depth. The second one is
  // that of the later lines for A, and of the later depth for B.
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

// tile_of_block is the blockIdx.y-th tile of a matrix with so many columns.
__device__ __forceinline__ Tile tile_of_block(int columns) {
  int across = (columns + TILE - 1) / TILE;
  return Tile(blockIdx.y / across * TILE, blockIdx.y % across * TILE);
}

// head_of is a span's head, of this width, of an activation.
template <typename Type> __device__ __forceinline__ Type *head_of(Type *x, int64_t stride, Span s, int width) {
  return x + s.row * stride + (int64_t)s.head * width;
}

// states_of is, of each chunk, sum over its tokens of a factor of keys, x, times one of
// values, y: what the chunk adds to the state, or its reads to the state's gradient.
template <typename Type>
__device__ __forceinline__ void states_of(const float *x, const Type *y, float *states, int64_t stride, int sequence, int tokens, int heads,
                                          int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, true>{x + s.index * CHUNK * keys, keys, keys, s.n},
           Factor<Type, true>{head_of(y, stride, s, values), stride, values, s.n});
  states += s.index * keys * values;
  tile.each(keys, values, [&](int i, int j, float sum) { states[(int64_t)i * values + j] = sum; });
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_written(const float *writes, const V_T *v, float *states, int64_t stride, int sequence, int tokens, int heads, int keys,
                          int values) {
  states_of(writes, v, states, stride, sequence, tokens, heads, keys, values);
}

// linear_recurrence_chain makes of what each chunk adds the state before the chunk, or
// with `backwards` of what it adds to the gradient that after the chunk. A thread has
// an element of a sequence's states. start is the first state and becomes the last
// one; it is null where the first one is zeros.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_chain(float *states, const float *total, float *start, int sequence, int chunks, int keys, int values, int backwards) {
  constexpr int AHEAD = 8;
  int64_t size = (int64_t)keys * values, element = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (element >= size) return;
  states += blockIdx.y * chunks * size + element;
  total += (int64_t)blockIdx.y * chunks * keys + element / values;
  if (start) start += (sequence + blockIdx.y) * size + element;
  float state = start ? *start : 0.f;
  for (int c = 0; c < chunks; c += AHEAD) {
    float added[AHEAD], by[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (c + a < chunks) {
        int at = backwards ? chunks - 1 - c - a : c + a;
        added[a] = states[at * size], by[a] = total[(int64_t)at * keys];
      }
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (c + a < chunks) {
        int at = backwards ? chunks - 1 - c - a : c + a;
        states[at * size] = state;
        state = by[a] * state + added[a];
      }
  }
  if (start) *start = state;
}

#ifdef O_T
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_output(const V_T *v, const float *scores, const float *reads, const float *states, O_T *o, int64_t stride_v,
                         int64_t stride_o, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, false>{reads + s.index * CHUNK * keys, keys, s.n, keys},
           Factor<float, true>{states + s.index * keys * values, values, values, keys});
  tile.add(Factor<float, false>{scores + s.index * CHUNK * CHUNK, CHUNK, CHUNK, CHUNK},
           Factor<V_T, true>{head_of(v, stride_v, s, values), stride_v, values, s.n});
  o = head_of(o, stride_o, s, values);
  tile.each(s.n, values, [&](int t, int j, float sum) { store(o + t * stride_o + j, sum); });
}
#endif

#ifdef DO_T
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_read(const float *reads, const DO_T *dout, float *dstates, int64_t stride, int sequence, int tokens, int heads, int keys,
                       int values) {
  states_of(reads, dout, dstates, stride, sequence, tokens, heads, keys, values);
}

// dscores [CHUNK CHUNK] is symmetric: of tokens s and t, that of what the later reads
// of the earlier.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dscores(const V_T *v, const DO_T *dout, float *dscores, int64_t stride_v, int64_t stride_do, int sequence, int tokens,
                          int heads, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile(0, 0);
  tile.add(Factor<DO_T, false>{head_of(dout, stride_do, s, values), stride_do, s.n, values},
           Factor<V_T, false>{head_of(v, stride_v, s, values), stride_v, s.n, values});
  dscores += s.index * CHUNK * CHUNK;
  tile.each(CHUNK, CHUNK, [&](int t, int from, float sum) {
    if (from <= t) dscores[t * CHUNK + from] = dscores[from * CHUNK + t] = sum;
  });
}

// dreads, and dwrites in blocks with z = 1.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dkeys(const V_T *v, const DO_T *dout, const float *states, const float *dstates, float *dreads, float *dwrites,
                        int64_t stride_v, int64_t stride_do, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(keys);
  int64_t state = s.index * keys * values;
  if (blockIdx.z == 0)
    tile.add(Factor<DO_T, false>{head_of(dout, stride_do, s, values), stride_do, s.n, values},
             Factor<float, false>{states + state, values, keys, values});
  else
    tile.add(Factor<V_T, false>{head_of(v, stride_v, s, values), stride_v, s.n, values},
             Factor<float, false>{dstates + state, values, keys, values});
  float *to = (blockIdx.z == 0 ? dreads : dwrites) + s.index * CHUNK * keys;
  tile.each(CHUNK, keys, [&](int t, int i, float sum) { to[(int64_t)t * keys + i] = sum; });
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dvalues(const DO_T *dout, const float *scores, const float *writes, const float *dstates, DV_T *dv, int64_t stride_do,
                          int64_t stride_dv, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, true>{scores + s.index * CHUNK * CHUNK, CHUNK, CHUNK, CHUNK},
           Factor<DO_T, true>{head_of(dout, stride_do, s, values), stride_do, values, s.n});
  tile.add(Factor<float, false>{writes + s.index * CHUNK * keys, keys, s.n, keys},
           Factor<float, true>{dstates + s.index * keys * values, values, values, keys});
  dv = head_of(dv, stride_dv, s, values);
  tile.each(s.n, values, [&](int t, int j, float sum) { store(dv + t * stride_dv + j, sum); });
}

// through [keys] is the gradient of the logarithm of a chunk's total, a warp a channel.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_through(const float *states, const float *dstates, const float *total, float *through, int channels, int values) {
  int channel = blockIdx.x * (256 / WARP) + threadIdx.x / WARP;
  if (channel >= channels) return;
  float sum = 0.f;
  for (int j = threadIdx.x % WARP; j < values; j += WARP) sum += states[(int64_t)channel * values + j] * dstates[(int64_t)channel * values + j];
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) through[channel] = total[channel] * sum;
}

// A thread of linear_recurrence_inputs has OWN tokens of a channel, and a block's 4
// warps a chunk of 32 channels.
constexpr int OWN = CHUNK / 4;

struct Own {
  float q[OWN], k[OWN], g[OWN]; // q is over sqrt(keys)
  float dq[OWN], dk[OWN], dg[OWN];

  // from_start is the decay of each token from before the first one on, which is itself
  // decayed by log.
  __device__ __forceinline__ void from_start(float log, float e[OWN]) const {
#pragma unroll
    for (int t = 0; t < OWN; t++) log += g[t], e[t] = decay(log);
  }
  __device__ __forceinline__ void to_end(float log, float e[OWN]) const {
#pragma unroll
    for (int t = OWN - 1; t >= 0; t--) e[t] = decay(log), log += g[t];
  }

  // later takes the gradients d of the decayed queries of tokens [lo, hi). g at t decays
  // what tokens t and later read; sum is that of what tokens from hi on do.
  __device__ __forceinline__ void later(const float *d, int lo, int hi, float sum) {
#pragma unroll
    for (int t = hi - 1; t >= lo; t--) sum += d[t] * q[t], dq[t] += d[t], dg[t] += sum;
  }
  // earlier takes those of decayed keys. g at t decays what tokens before t wrote.
  __device__ __forceinline__ void earlier(const float *d, int lo, int hi, float sum) {
#pragma unroll
    for (int t = lo; t < hi; t++) dg[t] += sum, dk[t] += d[t], sum += d[t] * k[t];
  }

  // halves takes what tokens of neighbouring halves are to each other, and then what
  // those within the halves are. dscores starts at this thread's rows and columns.
  template <int HALF> __device__ __forceinline__ void halves(const float *dscores) {
    float e[OWN], f[OWN];
#pragma unroll
    for (int lo = 0; lo < OWN; lo += 2 * HALF) {
      float log = 0.f;
#pragma unroll
      for (int t = lo + HALF - 1; t >= lo; t--) e[t] = decay(log), f[t] = k[t] * e[t], log += g[t];
      log = 0.f;
#pragma unroll
      for (int t = lo + HALF; t < lo + 2 * HALF; t++) log += g[t], e[t] = decay(log), f[t] = q[t] * e[t];
    }
#pragma unroll
    for (int lo = 0; lo < OWN; lo += 2 * HALF) {
      float d[OWN] = {};
#pragma unroll
      for (int t = lo; t < lo + HALF; t++)
#pragma unroll
        for (int r = lo + HALF; r < lo + 2 * HALF; r++) {
          float x = dscores[t * CHUNK + r];
          d[t] += x * f[r], d[r] += x * f[t];
        }
#pragma unroll
      for (int t = lo; t < lo + 2 * HALF; t++) d[t] *= e[t];
      earlier(d, lo, lo + HALF, 0.f);
      later(d, lo + HALF, lo + 2 * HALF, 0.f);
    }
    if constexpr (HALF > 1) halves<HALF / 2>(dscores);
  }
};

// products are the sums of a times b.
__device__ __forceinline__ float products(const float a[OWN], const float b[OWN]) {
  float sum = 0.f;
#pragma unroll
  for (int t = 0; t < OWN; t++) sum += a[t] * b[t];
  return sum;
}

// linear_recurrence_inputs goes from the gradients of scores, reads, writes and total to
// those of q, k and g.
extern "C" __global__ void __launch_bounds__(128)
linear_recurrence_inputs(const Q_T *q, const K_T *k, const float *g, const float *dscores, const float *dreads, const float *dwrites,
                         const float *through, DQ_T *dq, DK_T *dk, DG_T *dg, int64_t stride_q, int64_t stride_k, int64_t stride_g,
                         int64_t stride_dq, int64_t stride_dk, int64_t stride_dg, const int *start, int sequence, int tokens, int heads, int keys,
                         float scale) {
  __shared__ __align__(16) float scores[CHUNK * CHUNK];
  __shared__ float factors[CHUNK][WARP];
  __shared__ float logs[4][WARP], sums[3][4][WARP]; // of each warp's tokens
  Span s = span_of_block(sequence, tokens, heads);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, i = blockIdx.y * WARP + lane, first = warp * OWN;
  dscores += s.index * CHUNK * CHUNK, dreads += s.index * CHUNK * keys, dwrites += s.index * CHUNK * keys, through += s.index * keys;
  for (int e = threadIdx.x; e < CHUNK * CHUNK; e += 128) scores[e] = dscores[e];

  Channel<Q_T> query(q, stride_q, s, keys, i);
  Channel<K_T> key(k, stride_k, s, keys, i);
  Gates gate(g, stride_g, start, s, keys, i);
  Own own;
  float log = 0.f, e[OWN], d[OWN];
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    own.q[t] = query[first + t] * scale, own.k[t] = key[first + t], own.g[t] = gate[first + t];
    own.dq[t] = own.dk[t] = own.dg[t] = 0.f;
    log += own.g[t];
  }
  logs[warp][lane] = log;
  __syncthreads();

  // What tokens are to the states before and after the chunk.
  float written[OWN], since = 0.f, until = 0.f;
  for (int w = 0; w < 4; w++) {
    if (w < warp) since += logs[w][lane];
    if (w > warp) until += logs[w][lane];
  }
  own.from_start(since, e);
#pragma unroll
  for (int t = 0; t < OWN; t++) d[t] = i < keys ? e[t] * dreads[(int64_t)(first + t) * keys + i] : 0.f;
  own.to_end(until, e);
#pragma unroll
  for (int t = 0; t < OWN; t++) written[t] = i < keys ? e[t] * dwrites[(int64_t)(first + t) * keys + i] : 0.f;
  sums[0][warp][lane] = products(d, own.q), sums[1][warp][lane] = products(written, own.k);
  __syncthreads();
  float after = 0.f, before = 0.f;
#ifndef LOG_DECAYS
  before = i < keys ? through[i] : 0.f;
#endif
  for (int w = 3; w > warp; w--) after += sums[0][w][lane];
  for (int w = 0; w < warp; w++) before += sums[1][w][lane];
  own.later(d, 0, OWN, after);
  own.earlier(written, 0, OWN, before);

  // The halves of the chunk, of 2 warps each, and then the warps' tokens as halves.
#pragma unroll
  for (int half = 2; half > 0; half /= 2) {
    bool later = warp & half;
    float log = 0.f;
    if (half == 2 && warp == 3) log = logs[2][lane];
    if (half == 2 && warp == 0) log = logs[1][lane];
    if (later) own.from_start(log, e);
    else own.to_end(log, e);
    __syncthreads();
#pragma unroll
    for (int t = 0; t < OWN; t++) factors[first + t][lane] = e[t] * (later ? own.q[t] : own.k[t]), d[t] = 0.f;
    __syncthreads();
    int partner = (warp ^ half) / half * half * OWN;
#pragma unroll 4
    for (int r = partner; r < partner + half * OWN; r++) {
      float f = factors[r][lane];
#pragma unroll
      for (int t = 0; t < OWN; t += 4) {
        float x[4];
        load4(scores + r * CHUNK + first + t, x);
#pragma unroll
        for (int c = 0; c < 4; c++) d[t + c] += x[c] * f;
      }
    }
#pragma unroll
    for (int t = 0; t < OWN; t++) d[t] *= e[t];
    float sum = 0.f;
    if (half == 2) {
      sums[2][warp][lane] = later ? products(d, own.q) : products(d, own.k);
      __syncthreads();
      if (warp == 2) sum = sums[2][3][lane];
      if (warp == 1) sum = sums[2][0][lane];
    }
    if (later) own.later(d, 0, OWN, sum);
    else own.earlier(d, 0, OWN, sum);
  }
  own.halves<OWN / 2>(scores + first * CHUNK + first);

  if (i >= keys) return;
  int64_t column = (int64_t)s.head * keys + i;
#pragma unroll
  for (int t = 0; t < OWN; t++) {
    if (first + t >= s.n) continue;
    float x = scores[(first + t) * CHUNK + first + t];
    int64_t row = s.row + first + t;
    store(dq + row * stride_dq + column, (own.dq[t] + x * own.k[t]) * scale);
    store(dk + row * stride_dk + column, own.dk[t] + x * own.q[t]);
#ifndef LOG_DECAYS
    store(dg + row * stride_dg + column, own.dg[t]);
#endif
  }
}
#endif
