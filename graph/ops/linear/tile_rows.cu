// 2 to 16 rows, on tensor cores. In an mma, A holds the 16 rows of x and B holds 8 rows of w, which
// are 8 columns of y: a tile. The SPLIT blocks of a cluster compute the same tiles, each over its
// SLICE of K. In a block, PARTS warps share the slice.
//
// The warps of a block are specialized. Workers copy weights, STEP elements of K at a time, to ring
// buffers of AHEAD stages, and multiply them. Helpers load x as soon as the preceding kernels are
// done; later they add the partial sums of some rows of y. Weights depend on no kernel, so workers
// fill their rings until x has arrived. A worker keeps only FLIGHT copies in flight, however large
// its ring is: more would not increase the memory bandwidth, but x would wait behind them.
//
// Workers compute their tiles in ROUNDS, one tile each per round. While they compute a round, helpers
// finish the previous one.
//
// The assignment of k to positions in an mma is arbitrary as long as A and B agree, so a thread
// takes 8 adjacent elements. If K = 8 n + 4, every other row of w begins 8 bytes after a multiple of
// 16. A tile then has every second column, so that all its rows are aligned in the same way: of some
// rows the first 4 elements are multiplied separately, of the others the last 4.
//
// Macros: STEP, AHEAD, FLIGHT, SPLIT, PARTS, ROUNDS, HELPERS (warps), X_VECTOR (elements of x per load).

constexpr int TILE = 8, CHUNK = 8; // elements in 16 bytes
constexpr bool HALVES = K % CHUNK != 0;
constexpr int WHOLE = K / CHUNK * CHUNK; // the part of K that is copied
constexpr int PART = ((WHOLE + SPLIT * PARTS - 1) / (SPLIT * PARTS) + 31) / 32 * 32, SLICE = PARTS * PART;
constexpr bool EVEN = PART % STEP == 0 && WHOLE == SLICE * SPLIT;
constexpr int STEPS = (PART + STEP - 1) / STEP;
constexpr int APART = (SLICE + 63) / 64 * 64 + 32; // between rows of x: no two of 8 rows use the same banks
constexpr int OWN = 16 / SPLIT, CELLS = OWN * TILE; // rows of y that a block finishes, and its part of a tile
constexpr int STAGE = TILE * STEP;

constexpr int WORKERS = WARPS - HELPERS, ROUND = WORKERS / PARTS; // tiles of a round
constexpr int HELPING = HELPERS * WARP;                           // threads
constexpr int SUMS = SPLIT * WORKERS * MATRICES * CELLS;          // the partial sums that a block gets in a round

enum { HELPERS_ONLY = 1, X_IS_THERE, SUMS_ARE_THERE, SUMS_ARE_READ }; // named barriers

#if SPLIT > 1 && __CUDA_ARCH__ >= 900
#define CLUSTER __cluster_dims__(SPLIT, 1, 1)
// Sums passes partial sums from the workers of all blocks of a cluster to the helpers, round by
// round: one barrier counts the bytes that have arrived, another the blocks whose helpers have read
// theirs.
struct Sums {
  uint64_t *full, *empty;

  // begin gets the number of tiles and the bytes of the additional sums of the first round.
  __device__ __forceinline__ void begin(int tiles, int besides) const {
    if (threadIdx.x == 0) {
      mbarrier_init(shared_address(full), 1), mbarrier_init(shared_address(empty), SPLIT);
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      expect(0, tiles, besides);
    }
    __syncwarp();
    cluster_arrive();
  }
  __device__ __forceinline__ void expect(int round, int tiles, int besides) const {
    mbarrier_expect(shared_address(full), min(ROUND, tiles - round * ROUND) * (SUMS / ROUND) * 4 + besides);
  }
  // await_blocks returns when all blocks have started.
  __device__ __forceinline__ void await_blocks() const { cluster_await(); }

  // Workers: reserve waits until the previous round has been read, put stores to one of the blocks.
  __device__ __forceinline__ void reserve(int round) const {
    if (ROUNDS > 1 && round > 0) mbarrier_await_stores(empty, (round - 1) % 2);
  }
  __device__ __forceinline__ void put(float *p, int block, float v) const { store_async(p, full, block, v); }
  __device__ __forceinline__ void put(float *p, int block, float v0, float v1) const { store_async(p, full, block, v0, v1); }
  __device__ __forceinline__ void give() const {}

  // Helpers: take waits for a round, give_back makes room for the next one if there is one.
  __device__ __forceinline__ void take(int round) const { mbarrier_await_stores(full, round % 2); }
  __device__ __forceinline__ void give_back(int round, int tiles) const {
    if (ROUNDS == 1 || (round + 1) * ROUND >= tiles) return;
    int thread = threadIdx.x - WORKERS * WARP;
    if (thread == 0) expect(round + 1, tiles, 0);
    barrier_wait(HELPERS_ONLY, HELPING);
    if (thread < SPLIT) mbarrier_arrive_at(empty, thread);
  }
};
#else
#define CLUSTER
// The same within a block.
struct Sums {
  uint64_t *full, *empty;
  __device__ __forceinline__ void begin(int, int) const {}
  __device__ __forceinline__ void await_blocks() const {}
  __device__ __forceinline__ void reserve(int round) const {
    if (ROUNDS > 1 && round > 0) barrier_wait(SUMS_ARE_READ, THREADS);
  }
  __device__ __forceinline__ void put(float *p, int, float v) const { *p = v; }
  __device__ __forceinline__ void put(float *p, int, float v0, float v1) const { *(float2 *)p = make_float2(v0, v1); }
  __device__ __forceinline__ void give() const { barrier_arrive(SUMS_ARE_THERE, THREADS); }
  __device__ __forceinline__ void take(int) const { barrier_wait(SUMS_ARE_THERE, THREADS); }
  __device__ __forceinline__ void give_back(int round, int tiles) const {
    if (ROUNDS > 1 && (round + 1) * ROUND < tiles) barrier_arrive(SUMS_ARE_READ, THREADS);
  }
};
#endif

// Tiles are the tiles of a cluster.
struct Tiles {
  const bf16 *w;
  int first, count, cols;
  int k; // the first k of this warp

  __device__ __forceinline__ static bool odd(int tile) { return HALVES && tile % 2; }
  // col is column j of a tile; it may be beyond the last.
  __device__ __forceinline__ static int col(int tile, int j) { return HALVES ? tile / 2 * 2 * TILE + tile % 2 + 2 * j : tile * TILE + j; }
  __device__ __forceinline__ int tile(int s) const { return first + s / STEPS / MATRICES * ROUND + threadIdx.x / WARP / PARTS; }
  // place is the position of a chunk of a row in a stage: no two of 8 rows use the same banks.
  __device__ __forceinline__ static int place(int row, int chunk) { return row * STEP + (chunk ^ row % 2 * 4) * CHUNK; }

  // copy starts the copy of the warp's step s to a stage.
  __device__ __forceinline__ void copy(bf16 *stage, int s) const {
    constexpr int CHUNKS = STEP / CHUNK;
    int t = tile(s), at = s % STEPS * STEP;
    const bf16 *from = w + (int64_t)(s / STEPS % MATRICES * cols + col(t, 0)) * K + k + at + (odd(t) ? 4 : 0);
#pragma unroll
    for (int i = 0; i < TILE * CHUNKS; i += WARP) {
      int row = (i + threadIdx.x % WARP) / CHUNKS, chunk = (i + threadIdx.x % WARP) % CHUNKS;
      bool there = (EVEN || at + chunk * CHUNK < PART && k + at + chunk * CHUNK < WHOLE) && col(t, row) < cols;
      copy_async16(stage + place(row, chunk), from + row * (HALVES ? 2 * K : K) + chunk * CHUNK, there);
    }
  }
};

// load_x is 8 elements of x; with HALVES they are only aligned to 8 bytes.
__device__ __forceinline__ uint4 load_x(const bf16 *p) {
  if (!HALVES) return *(const uint4 *)p;
  uint2 a = *(const uint2 *)p, b = *(const uint2 *)(p + 4);
  return make_uint4(a.x, a.y, b.x, b.y);
}

// Cell is an element of y that a helper finishes. What it needs besides the sums is loaded before
// they are awaited.
struct Cell {
  int row, col, at; // at: its place in the partial sums of one warp
  bool own;
  float beside; // what is added
#ifdef TAPS
  Channel channel;
#endif
};

#ifdef NORM
// load_normed stores x times the norm's gains in h [16 APART], and a block's part of each row's sum
// of squares in squares. The norm's scale (1 over the root mean square), which differs by row, is
// applied to the sums at the end. All loads are issued before the first is awaited.
__device__ __forceinline__ void load_normed(const X_T *x, bf16 *h, const float *gains, float (*squares)[OWN], const Sums &sums, int rank, int rows, int64_t stride_x) {
  constexpr int VECTORS = (SLICE + WARP * 4 - 1) / (WARP * 4), ROWS = (16 + HELPERS - 1) / HELPERS;
  int first = threadIdx.x / WARP - WORKERS, lane = threadIdx.x % WARP, slice = rank * SLICE;
  float own[ROWS][VECTORS][4] = {};
#pragma unroll
  for (int n = 0; n < ROWS; n++)
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      int r = n * HELPERS + first, k = (i * WARP + lane) * 4;
      if (r < rows && k < SLICE && slice + k < K) load4(x + r * stride_x + slice + k, own[n][i]);
    }
#pragma unroll
  for (int n = 0; n < ROWS; n++) {
    int r = n * HELPERS + first;
    float square = 0.f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      int k = (i * WARP + lane) * 4;
      if (r >= 16 || k >= SLICE) break;
      float4 g = *(const float4 *)(gains + k);
      float *v = own[n][i];
#pragma unroll
      for (int e = 0; e < 4; e++) square += v[e] * v[e];
      v[0] *= g.x, v[1] *= g.y, v[2] *= g.z, v[3] *= g.w;
      store4(h + r * APART + k, v);
    }
    square = warp_sum(square);
    if (lane == 0 && r < 16) sums.put(&squares[rank][r % OWN], r / OWN, square);
  }
}
#else
// load_plain copies x to h [16 APART], with zeros for what is outside of x.
__device__ __forceinline__ void load_plain(const bf16 *x, bf16 *h, int slice, int rows, int64_t stride_x) {
  constexpr int MOVES = ((HALVES ? SLICE + 4 : SLICE) + X_VECTOR - 1) / X_VECTOR;
  int first = threadIdx.x / WARP - WORKERS, lane = threadIdx.x % WARP;
#pragma unroll
  for (int r = first; r < 16; r += HELPERS)
#pragma unroll
    for (int i = 0; i < MOVES; i += WARP) {
      int k = (i + lane) * X_VECTOR;
      if (i + lane < MOVES) copy_async<X_VECTOR * 2>(h + r * APART + k, x + r * stride_x + slice + k, r < rows ? max(0, min(X_VECTOR, K - slice - k)) * 2 : 0);
    }
  copy_async_commit();
  copy_async_wait<0>();
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) CLUSTER linear_tile_rows(OPERANDS) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  let_next_begin();
  int rank = blockIdx.x % SPLIT, group = blockIdx.x / SPLIT, groups = gridDim.x / SPLIT;
  int all = HALVES ? (cols + 2 * TILE - 1) / (2 * TILE) * 2 : (cols + TILE - 1) / TILE;
  int first = (int)((int64_t)all * group / groups), count = (int)((int64_t)all * (group + 1) / groups) - first;
  int slice = rank * SLICE;
  bf16 *ring = (bf16 *)memory + warp * AHEAD * STAGE, *h = (bf16 *)memory + WORKERS * AHEAD * STAGE;
  float *parts = (float *)(h + 16 * APART); // [SPLIT PARTS][ROUND][MATRICES][OWN][TILE]
  __shared__ uint64_t full, empty;
  __shared__ float squares[SPLIT][OWN];
  __shared__ volatile int x_is_coming; // only a hint, upon which workers stop filling their rings
  Sums sums = {&full, &empty};
#ifdef NORM
  float *gains = parts + SUMS; // [SLICE]
  sums.begin(count, sizeof(squares));
#else
  sums.begin(count, 0);
#endif

  if (warp < WORKERS) {
    int part = warp % PARTS, steps = max(0, count - warp / PARTS + ROUND - 1) / ROUND * MATRICES * STEPS;
    Tiles own = {w, first, count, cols, slice + part * PART};
    int issued = 0; // also beyond the last step: each is a group of copies
#pragma unroll
    for (; issued < FLIGHT; issued++) {
      if (issued < steps) own.copy(ring + issued * STAGE, issued);
      copy_async_commit();
    }
    for (; issued < min(AHEAD, steps) && !__any_sync(FULL, x_is_coming); issued++) {
      copy_async_wait<FLIGHT - 1>();
      own.copy(ring + issued * STAGE, issued);
      copy_async_commit();
    }
    sums.await_blocks();
    barrier_wait(X_IS_THERE, THREADS);

    float sum[4] = {};
    int round = 0;
    for (int s = 0, slot = 0, fill = issued % AHEAD, landed = issued - FLIGHT; s < steps; s++, slot = slot + 1 == AHEAD ? 0 : slot + 1) {
      // While a worker processes stages that arrived before x, it requests a new stage only at every
      // second step.
      if (s >= landed || s % 2 != 0 && issued - s < AHEAD) {
        copy_async_wait<FLIGHT - 1>();
        __syncwarp();
        if (issued < steps) own.copy(ring + fill * STAGE, issued);
        copy_async_commit();
        issued++, landed++, fill = fill + 1 == AHEAD ? 0 : fill + 1;
      }
      const bf16 *stage = ring + slot * STAGE, *from = h + lane / 4 * APART + part * PART + s % STEPS * STEP + (Tiles::odd(own.tile(s)) ? 4 : 0);
#pragma unroll
      for (int j = 0; j < STEP; j += 32) {
        if (PART % STEP != 0 && s % STEPS * STEP + j >= PART) break;
        int chunk = j / CHUNK + lane % 4;
        uint4 upper = load_x(from + chunk * CHUNK), lower = load_x(from + 8 * APART + chunk * CHUNK);
        uint4 b = *(const uint4 *)(stage + Tiles::place(lane / 4, chunk));
        const uint32_t a0[4] = {upper.x, lower.x, upper.y, lower.y}, a1[4] = {upper.z, lower.z, upper.w, lower.w}, b0[2] = {b.x, b.y}, b1[2] = {b.z, b.w};
        mma_16x8x16(sum, a0, b0);
        mma_16x8x16(sum, a1, b1);
      }
      if (s % STEPS < STEPS - 1) continue;
      int m = s / STEPS % MATRICES, row = lane / 4;
      if (m == 0) sums.reserve(round);
      float *to = parts + (((rank * PARTS + part) * ROUND + warp / PARTS) * MATRICES + m) * CELLS + lane % 4 * 2;
      sums.put(to + row % OWN * TILE, row / OWN, sum[0], sum[1]);
      sums.put(to + (row + 8) % OWN * TILE, (row + 8) / OWN, sum[2], sum[3]);
      sum[0] = sum[1] = sum[2] = sum[3] = 0.f;
      if (m == MATRICES - 1) sums.give(), round++;
    }
    for (; round * ROUND < count; round++) sums.reserve(round), sums.give(); // in which this warp has no tile
    return;
  }

  int thread = threadIdx.x - WORKERS * WARP;
  if (thread == 0) x_is_coming = 0;
#ifdef NORM
  for (int k = thread * 4; k < SLICE; k += HELPING * 4) {
    float g[4] = {};
    if (slice + k < K) load4(gain + slice + k, g);
    *(float4 *)(gains + k) = make_float4(g[0], g[1], g[2], g[3]);
  }
#endif
  wait_for_inputs();
  sums.await_blocks();
#ifdef NORM
  barrier_wait(HELPERS_ONLY, HELPING); // gains are stored
  load_normed(x, h, gains, squares, sums, rank, rows, stride_x);
#else
  load_plain((const bf16 *)x, h, slice, rows, stride_x);
#endif
  x_is_coming = 1;
  barrier_arrive(X_IS_THERE, THREADS);

  // prepare finds cell e of a round and loads what it needs besides the sums. A warp's cells are
  // adjacent in a row of y.
  auto prepare = [&](Cell &c, int round, int e) {
    int own_row = e / (ROUND * TILE), number = e % (ROUND * TILE) / TILE, tile = first + round * ROUND + number;
    c.row = rank * OWN + own_row, c.col = Tiles::col(tile, e % TILE), c.at = (number * MATRICES * OWN + own_row) * TILE + e % TILE;
    c.own = own_row < OWN && tile < first + count && c.row < rows && c.col < cols;
    c.beside = 0.f;
    if (!c.own) return;
    if (z) c.beside = z[c.row * stride_z + c.col];
    if (HALVES) { // the 4 elements of K outside of whole chunks
      float a[4], b[4];
      int k = Tiles::odd(tile) ? 0 : WHOLE;
      load4((const bf16 *)x + c.row * stride_x + k, a), load4(w + (int64_t)c.col * K + k, b);
#pragma unroll
      for (int n = 0; n < 4; n++) c.beside += a[n] * b[n];
    }
#ifdef TAPS
    if (c.col < channels) c.channel.load(taps, bias, tail + (int64_t)c.row * (TAPS - 1) * channels, c.col, channels);
#endif
  };
  // value computes a cell from its partial sums.
  auto value = [&](Cell &c) {
    float total[2] = {};
#pragma unroll
    for (int r = 0; r < SPLIT * PARTS; r++)
#pragma unroll
      for (int m = 0; m < MATRICES; m++) total[m] += parts[(r * ROUND * MATRICES + m) * CELLS + c.at];
#ifdef NORM
    float square = 0.f;
#pragma unroll
    for (int r = 0; r < SPLIT; r++) square += squares[r][c.row % OWN];
    float scale = rsqrtf(square / K + epsilon);
    total[0] *= scale, total[1] *= scale;
#endif
    float v = finish(total[0], total[1], c.beside);
#ifdef TAPS
    if (c.col < channels) v = c.channel.take(v, tail + (int64_t)c.row * (TAPS - 1) * channels, c.col, channels);
#endif
    return v;
  };

  constexpr int MINE = (ROUND * CELLS + HELPING - 1) / HELPING;
  Cell cells[MINE];
  for (int round = 0; round * ROUND < count; round++) {
#pragma unroll
    for (int i = 0; i < MINE; i++) prepare(cells[i], round, i * HELPING + thread);
    sums.take(round);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      Cell &c = cells[i];
      if (c.own) store(y + c.row * stride_y + c.col, value(c));
    }
    sums.give_back(round, count);
  }
}
