// 2 to 16 rows, on tensor cores. In an mma, A holds the 16 rows of x and B holds 8 rows of w, which
// are 8 columns of y: a tile. The SPLIT blocks of a cluster compute the same tiles, each over its
// SLICE of K. In a block, PARTS warps share the slice.
//
// The warps of a block are specialized. Workers copy weights, STEP elements of K at a time, to ring
// buffers of AHEAD stages, and multiply them. Loaders load x as soon as the preceding kernels are
// done. Weights depend on no kernel, so workers fill their rings until x has arrived. A worker keeps
// only FLIGHT copies in flight, however large its ring is: more would not increase the memory
// bandwidth, but x would wait behind them.
//
// At the end each block adds the partial sums of some rows of y. With TO_HOST, y is in host memory,
// behind a slow bus. Workers then compute their tiles in ROUNDS, one tile each per round, and a
// round's results are stored while the next round's weights arrive.
//
// The assignment of k to positions in an mma is arbitrary as long as A and B agree, so a thread
// takes 8 adjacent elements. If K = 8 n + 4, every other row of w begins 8 bytes after a multiple of
// 16. A tile then has every second column, so that all its rows are aligned in the same way: of some
// rows the first 4 elements are multiplied separately, of the others the last 4.
//
// Macros: STEP, AHEAD, FLIGHT, SPLIT, PARTS, LOADERS (warps), X_VECTOR (elements of x per load).

constexpr int TILE = 8, CHUNK = 8; // elements in 16 bytes
constexpr bool HALVES = K % CHUNK != 0;
constexpr int WHOLE = K / CHUNK * CHUNK; // the part of K that is copied
constexpr int PART = ((WHOLE + SPLIT * PARTS - 1) / (SPLIT * PARTS) + 31) / 32 * 32, SLICE = PARTS * PART;
constexpr bool EVEN = PART % STEP == 0 && WHOLE == SLICE * SPLIT;
constexpr int STEPS = (PART + STEP - 1) / STEP;
constexpr int APART = (SLICE + 63) / 64 * 64 + 32; // between rows of x: no two of 8 rows use the same banks
constexpr int OWN = 16 / SPLIT, CELLS = OWN * TILE; // rows of y that a block finishes, and its part of a tile
constexpr int STAGE = TILE * STEP;

#ifndef TO_HOST
#define ROUNDS 1
#endif
constexpr int WORKERS = WARPS - LOADERS, ROUND = WORKERS / PARTS; // tiles of a round

#if SPLIT > 1 && __CUDA_ARCH__ >= 900
#define CLUSTER __cluster_dims__(SPLIT, 1, 1)
// Sums exchanges partial sums between the blocks of a cluster. A barrier for each round counts the
// bytes that have arrived.
struct Sums {
  static constexpr bool BY_ROUND = ROUNDS > 1;
  uint64_t *barriers;

  // begin gets the bytes of a tile, the number of tiles, and the additional bytes.
  __device__ __forceinline__ void begin(int bytes, int tiles, int besides) const {
    if (threadIdx.x == 0) {
#pragma unroll
      for (int r = 0; r < ROUNDS; r++)
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(barriers + r)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#pragma unroll
      for (int r = 0; r < ROUNDS; r++) {
        int all = bytes * (BY_ROUND ? max(0, min(ROUND, tiles - r * ROUND)) : tiles) + (r == 0 ? besides : 0);
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barriers + r)), "r"(all) : "memory");
      }
    }
    __syncwarp();
    cluster_arrive();
  }
  // await_blocks returns when all blocks have started.
  __device__ __forceinline__ void await_blocks() const { cluster_await(); }
  // put stores to shared memory of one of the cluster's blocks.
  __device__ __forceinline__ void put(float *p, int block, float v) const { store_async(p, barriers, block, v); } // in the first round
  __device__ __forceinline__ void put(float *p, int block, float v0, float v1, int round) const {
    store_async(p, barriers + (BY_ROUND ? round : 0), block, v0, v1);
  }
  __device__ __forceinline__ void await(int round) const { mbarrier_await_stores(barriers + round); }
};
#else
#define CLUSTER
struct Sums {
  static constexpr bool BY_ROUND = false;
  uint64_t *barriers;
  __device__ __forceinline__ void begin(int, int, int) const {}
  __device__ __forceinline__ void await_blocks() const {}
  __device__ __forceinline__ void put(float *p, int, float v) const { *p = v; }
  __device__ __forceinline__ void put(float *p, int, float v0, float v1, int) const { *(float2 *)p = make_float2(v0, v1); }
  __device__ __forceinline__ void await(int) const { __syncthreads(); }
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

__device__ __forceinline__ void prefetch(const float *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Cells are the elements of y that a block finishes.
struct Cells {
  const bf16 *x, *w;
  const float *z;
  int rows, cols, first, rank;
  int64_t stride_x, stride_z;

  __device__ __forceinline__ int row(int e) const { return rank * OWN + e % CELLS / TILE; }
  __device__ __forceinline__ int col(int e) const { return Tiles::col(first + e / CELLS, e % TILE); }
  __device__ __forceinline__ bool is(int e) const { return row(e) < rows && col(e) < cols; }
  // beside is what is added to element e besides the products of whole chunks.
  __device__ __forceinline__ float beside(int e) const {
    float sum = z ? z[row(e) * stride_z + col(e)] : 0.f;
    if (HALVES) {
      float a[4], b[4];
      int k = Tiles::odd(first + e / CELLS) ? 0 : WHOLE;
      load4(x + row(e) * stride_x + k, a), load4(w + (int64_t)col(e) * K + k, b);
#pragma unroll
      for (int i = 0; i < 4; i++) sum += a[i] * b[i];
    }
    return sum;
  }
};

constexpr int THREADS_OF_LOADERS = LOADERS * WARP;

#ifdef NORM
// load_normed stores x times the norm's gains in h [16 APART], and a block's part of each row's sum
// of squares in squares. The norm's scale (1 over the root mean square), which differs by row, is
// applied to the sums at the end. All loads are issued before the first is awaited.
__device__ __forceinline__ void load_normed(const X_T *x, bf16 *h, const float *gains, float (*squares)[OWN], const Sums &sums, int rank, int rows, int64_t stride_x) {
  constexpr int VECTORS = (SLICE + WARP * 4 - 1) / (WARP * 4), ROWS = (16 + LOADERS - 1) / LOADERS;
  int first = threadIdx.x / WARP - WORKERS, lane = threadIdx.x % WARP, slice = rank * SLICE;
  float own[ROWS][VECTORS][4] = {};
#pragma unroll
  for (int n = 0; n < ROWS; n++)
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      int r = n * LOADERS + first, k = (i * WARP + lane) * 4;
      if (r < rows && k < SLICE && slice + k < K) load4(x + r * stride_x + slice + k, own[n][i]);
    }
#pragma unroll
  for (int n = 0; n < ROWS; n++) {
    int r = n * LOADERS + first;
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
  for (int r = first; r < 16; r += LOADERS)
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
  int part = warp % PARTS, slice = rank * SLICE;
  Tiles own = {w, first, count, cols, slice + part * PART};
  int steps = warp < WORKERS ? max(0, count - warp / PARTS + ROUND - 1) / ROUND * MATRICES * STEPS : 0;
  bf16 *ring = (bf16 *)memory + warp * AHEAD * STAGE, *h = (bf16 *)memory + WORKERS * AHEAD * STAGE;
  float *parts = (float *)(h + 16 * APART); // [SPLIT PARTS][count][MATRICES][OWN][TILE]
  float *besides = parts + SPLIT * PARTS * MATRICES * CELLS * count; // [count][OWN][TILE], additional terms of cells
  __shared__ uint64_t barriers[ROUNDS];
  __shared__ float squares[SPLIT][OWN];
  __shared__ volatile int x_is_there; // only a hint, upon which workers stop filling their rings
  Sums sums = {barriers};
#ifdef NORM
  float *gains = besides + count * CELLS; // [SLICE]
  sums.begin(SPLIT * PARTS * MATRICES * CELLS * 4, count, sizeof(squares));
#else
  sums.begin(SPLIT * PARTS * MATRICES * CELLS * 4, count, 0);
#endif
  Cells cells = {(const bf16 *)x, w, z, rows, cols, first, rank, stride_x, stride_z};

  int issued = 0; // the warp's issued steps, also beyond the last: each is a group of copies
  if (warp < WORKERS) {
#pragma unroll
    for (; issued < FLIGHT; issued++) {
      if (issued < steps) own.copy(ring + issued * STAGE, issued);
      copy_async_commit();
    }
    for (; issued < min(AHEAD, steps) && !__any_sync(FULL, x_is_there); issued++) {
      copy_async_wait<FLIGHT - 1>();
      own.copy(ring + issued * STAGE, issued);
      copy_async_commit();
    }
    sums.await_blocks();
  } else {
    int thread = threadIdx.x - WORKERS * WARP;
    if (thread == 0) x_is_there = 0;
#ifdef NORM
    for (int k = thread * 4; k < SLICE; k += THREADS_OF_LOADERS * 4) {
      float g[4] = {};
      if (slice + k < K) load4(gain + slice + k, g);
      *(float4 *)(gains + k) = make_float4(g[0], g[1], g[2], g[3]);
    }
#endif
#ifdef TAPS
    // Prefetch what a convolution needs at the end into L2: no preceding kernel writes tails.
    for (int e = thread * TILE; e < count * CELLS; e += THREADS_OF_LOADERS * TILE)
      if (int c = cells.col(e); cells.is(e) && c < channels) {
        prefetch(bias + c);
#pragma unroll
        for (int j = 0; j < TAPS; j++) {
          prefetch(taps + c * TAPS + j * TILE);
          if (j < TAPS - 1) prefetch(tail + ((int64_t)cells.row(e) * (TAPS - 1) + j) * channels + c);
        }
      }
#endif
    wait_for_inputs();
    sums.await_blocks();
#ifdef NORM
    asm volatile("bar.sync 1, %0;" ::"n"(THREADS_OF_LOADERS) : "memory"); // gains are stored
    load_normed(x, h, gains, squares, sums, rank, rows, stride_x);
#else
    load_plain(x, h, slice, rows, stride_x);
#endif
    x_is_there = 1;
  }
  __syncthreads();
  if (!Sums::BY_ROUND && warp >= WORKERS)
    for (int e = threadIdx.x - WORKERS * WARP; e < count * CELLS; e += THREADS_OF_LOADERS) besides[e] = cells.is(e) ? cells.beside(e) : 0.f;

  // make_cells computes the cells of tiles [from, from + n) from their sums.
  auto make_cells = [&](int from, int n) {
    for (int i = threadIdx.x; i < n * CELLS; i += THREADS) {
#ifdef TO_HOST
      int e = (from + i % (n * TILE) / TILE) * CELLS + i / (n * TILE) * TILE + i % TILE; // a warp's cells are adjacent in a row
#else
      int e = from * CELLS + i;
#endif
      float total[2] = {};
#pragma unroll
      for (int r = 0; r < SPLIT * PARTS; r++)
#pragma unroll
        for (int m = 0; m < MATRICES; m++) total[m] += parts[((r * count + e / CELLS) * MATRICES + m) * CELLS + e % CELLS];
#ifdef NORM
      float square = 0.f;
#pragma unroll
      for (int r = 0; r < SPLIT; r++) square += squares[r][e % CELLS / TILE];
      float scale = rsqrtf(square / K + epsilon);
      total[0] *= scale, total[1] *= scale;
#endif
      if (cells.is(e)) store(y + cells.row(e) * stride_y + cells.col(e), RESULT(cells.row(e), cells.col(e), finish(total[0], total[1], Sums::BY_ROUND ? cells.beside(e) : besides[e])));
    }
  };
  int round = 0; // the first unfinished round
  auto finish_round = [&]() {
    sums.await(round);
    make_cells(round * ROUND, min(ROUND, count - round * ROUND));
    round++;
  };

  float sum[4] = {};
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
    int tile = own.tile(s);
    const bf16 *stage = ring + slot * STAGE, *from = h + lane / 4 * APART + part * PART + s % STEPS * STEP + (Tiles::odd(tile) ? 4 : 0);
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
    float *to = parts + (((rank * PARTS + part) * count + tile - first) * MATRICES + m) * CELLS + lane % 4 * 2;
    int now = s / STEPS / MATRICES;
    sums.put(to + row % OWN * TILE, row / OWN, sum[0], sum[1], now);
    sums.put(to + (row + 8) % OWN * TILE, (row + 8) / OWN, sum[2], sum[3], now);
    sum[0] = sum[1] = sum[2] = sum[3] = 0.f;
    if (Sums::BY_ROUND && m == MATRICES - 1 && now > 0) finish_round(); // the previous one: its sums have arrived
  }
  if (Sums::BY_ROUND) {
    while (round * ROUND < count) finish_round();
  } else {
    __syncthreads();
    sums.await(0);
    make_cells(0, count);
  }
}
