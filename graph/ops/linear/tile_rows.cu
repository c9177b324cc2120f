// 2 to 16 rows, on tensor cores: an mma's A is the rows of x, its B 8 rows of w, which are
// columns of y: a tile. SPLIT blocks of a cluster make the same tiles, each of its SLICE of K, which
// PARTS warps share. By itself a warp copies STEP of K at a time to a ring of its own, AHEAD steps
// before it multiplies them. (Loads to registers would all be waited for with the first.) Of these it
// asks for EARLY before x and for the others behind it: x comes after all that was asked for before.
// At the end each block adds up the sums of some rows of y; TO_HOST, where they pass over a slow bus, at the end of
// each of the ROUNDS in which its warps make a tile each, so that they pass while the next one's weights come.
//
// Which k stands where in an mma does not matter as long as A and B agree, so that a thread takes
// 8 elements that lie next to each other. Rows of w of K = 8 n + 4 elements begin 8 bytes beside
// a multiple of 16, every other one, so that a tile is 8 columns of which each is the next but
// one. Of such rows the first 4 elements are taken by themselves, of others the last.
//
// Macros: STEP, AHEAD, EARLY, SPLIT, PARTS; X_VECTOR elements of x are loaded at once.

constexpr int TILE = 8, CHUNK = 8; // elements of 16 bytes
constexpr bool HALVES = K % CHUNK != 0;
constexpr int WHOLE = K / CHUNK * CHUNK; // of K: what is copied
constexpr int PART = ((WHOLE + SPLIT * PARTS - 1) / (SPLIT * PARTS) + 31) / 32 * 32, SLICE = PARTS * PART;
constexpr bool EVEN = PART % STEP == 0 && WHOLE == SLICE * SPLIT;
constexpr int STEPS = (PART + STEP - 1) / STEP;
constexpr int APART = (SLICE + 63) / 64 * 64 + 32; // rows of x: no two of 8 in the same banks
constexpr int OWN = 16 / SPLIT, CELLS = OWN * TILE; // rows of y that a block finishes, and its part of a tile
constexpr int STAGE = TILE * STEP;

#ifndef TO_HOST
#define ROUNDS 1
#endif
constexpr int ROUND = WARPS / PARTS; // tiles of a round

#if SPLIT > 1 && __CUDA_ARCH__ >= 900
#define CLUSTER __cluster_dims__(SPLIT, 1, 1)
// Sums are what the blocks of a cluster make for each other. A barrier counts the bytes that have come, of each round.
struct Sums {
  static constexpr bool BY_ROUND = ROUNDS > 1;
  uint64_t *barriers;

  // begin is told the bytes of a tile, of all tiles, and those that come besides.
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
  // await_blocks returns when all blocks have begun.
  __device__ __forceinline__ void await_blocks() const { cluster_await(); }
  // put stores to a place in shared memory of one of the cluster's blocks.
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

// Tiles are those of a cluster.
struct Tiles {
  const bf16 *w;
  int first, count, cols;
  int k; // the first that is the warp's

  __device__ __forceinline__ static bool odd(int tile) { return HALVES && tile % 2; }
  // col is column j of a tile; it may be beyond the last.
  __device__ __forceinline__ static int col(int tile, int j) { return HALVES ? tile / 2 * 2 * TILE + tile % 2 + 2 * j : tile * TILE + j; }
  __device__ __forceinline__ int tile(int s) const { return first + s / STEPS / MATRICES * (WARPS / PARTS) + threadIdx.x / WARP / PARTS; }
  // place is where a stage has a chunk of a row: no two of 8 rows' in the same banks.
  __device__ __forceinline__ static int place(int row, int chunk) { return row * STEP + (chunk ^ row % 2 * 4) * CHUNK; }

  // copy begins to copy step s of the warp's to a stage.
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

// load_x is 8 elements of x; of HALVES they are aligned to 8 bytes alone.
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
  // beside is what element e gets besides the products of whole chunks.
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

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) CLUSTER linear_tile_rows(OPERANDS) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  let_next_begin();
  int rank = blockIdx.x % SPLIT, group = blockIdx.x / SPLIT, groups = gridDim.x / SPLIT;
  int all = HALVES ? (cols + 2 * TILE - 1) / (2 * TILE) * 2 : (cols + TILE - 1) / TILE;
  int first = (int)((int64_t)all * group / groups), count = (int)((int64_t)all * (group + 1) / groups) - first;
  int part = warp % PARTS, slice = rank * SLICE;
  Tiles own = {w, first, count, cols, slice + part * PART};
  int steps = (count - warp / PARTS + WARPS / PARTS - 1) / (WARPS / PARTS) * MATRICES * STEPS;
  bf16 *ring = (bf16 *)memory + warp * AHEAD * STAGE, *h = (bf16 *)memory + WARPS * AHEAD * STAGE;
  float *parts = (float *)(h + 16 * APART); // [SPLIT PARTS][count][MATRICES][OWN][TILE]
  __shared__ uint64_t barriers[ROUNDS];
  __shared__ float squares[SPLIT][OWN];
  Sums sums = {barriers};
#ifdef NORM
  sums.begin(SPLIT * PARTS * MATRICES * CELLS * 4, count, sizeof(squares));
#else
  sums.begin(SPLIT * PARTS * MATRICES * CELLS * 4, count, 0);
#endif

#pragma unroll
  for (int i = 0; i < EARLY; i++) {
    if (i < steps) own.copy(ring + i * STAGE, i);
    copy_async_commit();
  }
  Cells cells = {(const bf16 *)x, w, z, rows, cols, first, rank, stride_x, stride_z};
#ifdef TAPS
  // What a convolution needs at the end comes to the second-level cache: of the kernels before this one, none writes tails.
  for (int e = threadIdx.x * TILE; e < count * CELLS; e += THREADS * TILE)
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
  // What differs from row to row, 1 over the root mean square, scales the sums at the end.
#pragma unroll
  for (int r0 = 0; r0 < 16; r0 += WARPS) {
    int r = r0 + warp;
    if (16 % WARPS != 0 && r >= 16) break;
    float square = 0.f;
#pragma unroll 8
    for (int k = lane * 4; k < SLICE; k += WARP * 4) {
      float v[4] = {}, g[4] = {};
      if (r < rows && slice + k < K) load4(x + r * stride_x + slice + k, v), load4(gain + slice + k, g);
#pragma unroll
      for (int e = 0; e < 4; e++) square += v[e] * v[e], v[e] *= g[e];
      store4(h + r * APART + k, v);
    }
    square = warp_sum(square);
    if (lane == 0) sums.put(&squares[rank][r % OWN], r / OWN, square);
  }
#else
  constexpr int MOVES = ((HALVES ? SLICE + 4 : SLICE) + X_VECTOR - 1) / X_VECTOR;
#pragma unroll 8
  for (int i = threadIdx.x; i < 16 * MOVES; i += THREADS) {
    int r = i / MOVES, k = i % MOVES * X_VECTOR;
    const bf16 *from = x + r * stride_x + slice + k;
    bf16 *to = h + r * APART + k;
    int left = r < rows ? K - slice - k : 0;
    if (X_VECTOR == 8) {
      uint2 rest = left >= 4 && left < 8 ? *(const uint2 *)from : make_uint2(0, 0);
      *(uint4 *)to = left >= 8 ? *(const uint4 *)from : make_uint4(rest.x, rest.y, 0, 0);
    } else {
      *(uint2 *)to = left >= 4 ? *(const uint2 *)from : make_uint2(0, 0);
    }
  }
#endif
#pragma unroll
  for (int i = EARLY; i < AHEAD; i++) {
    if (i < steps) own.copy(ring + i * STAGE, i);
    copy_async_commit();
  }
  float beside = threadIdx.x < count * CELLS && cells.is(threadIdx.x) ? cells.beside(threadIdx.x) : 0.f;
  __syncthreads();

  // make_cells makes the cells of tiles [from, from + n) of their sums.
  auto make_cells = [&](int from, int n) {
    for (int i = threadIdx.x; i < n * CELLS; i += THREADS) {
#ifdef TO_HOST
      int e = (from + i % (n * TILE) / TILE) * CELLS + i / (n * TILE) * TILE + i % TILE; // a warp's lie side by side in a row
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
      if (cells.is(e)) store(y + cells.row(e) * stride_y + cells.col(e), RESULT(cells.row(e), cells.col(e), finish(total[0], total[1], e == threadIdx.x ? beside : cells.beside(e))));
    }
  };
  int round = 0; // the first that is not finished
  auto finish_round = [&]() {
    sums.await(round);
    make_cells(round * ROUND, min(ROUND, count - round * ROUND));
    round++;
  };

  float sum[4] = {};
  for (int s0 = 0; s0 < steps; s0 += AHEAD) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int s = s0 + i;
      if (s >= steps) break;
      copy_async_wait<AHEAD - 1>();
      __syncwarp();
      int tile = own.tile(s);
      const bf16 *stage = ring + i * STAGE, *from = h + lane / 4 * APART + part * PART + s % STEPS * STEP + (Tiles::odd(tile) ? 4 : 0);
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
      __syncwarp();
      if (s + AHEAD < steps) own.copy(ring + i * STAGE, s + AHEAD);
      copy_async_commit();
      if (s % STEPS < STEPS - 1) continue;
      int m = s / STEPS % MATRICES, row = lane / 4;
      float *to = parts + (((rank * PARTS + part) * count + tile - first) * MATRICES + m) * CELLS + lane % 4 * 2;
      int now = s / STEPS / MATRICES;
      sums.put(to + row % OWN * TILE, row / OWN, sum[0], sum[1], now);
      sums.put(to + (row + 8) % OWN * TILE, (row + 8) / OWN, sum[2], sum[3], now);
      sum[0] = sum[1] = sum[2] = sum[3] = 0.f;
      if (Sums::BY_ROUND && m == MATRICES - 1 && now > 0) finish_round(); // the one before: its sums have come
    }
  }
  if (Sums::BY_ROUND) {
    while (round * ROUND < count) finish_round();
  } else {
    sums.await(0);
    make_cells(0, count);
  }
}
