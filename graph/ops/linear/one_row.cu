// One row. An item is some columns of y; each warp of a block has a piece of their weights, and
// loads all of it at once. Two items of a block are in flight. The first two are determined by the
// block's number; the others are taken from a counter, in order, because memory serves some SMs
// faster than others, and so all blocks end together. If K = 8 n + 4, every other row of w begins 8
// bytes after a multiple of 16: of such rows the first 4 elements are handled separately, of the
// other rows the last 4, and x is stored twice, for both alignments.
//
// Macros: LOADS, the vectors of 16 bytes per piece and thread. WARPS is at least the number of
// pieces of a column.

constexpr int VECTORS = K / 8, PIECE = WARP * LOADS, PIECES = (VECTORS + PIECE - 1) / PIECE;
constexpr int SHARES = MATRICES * PIECES, CHUNK = WARPS / SHARES; // pieces of an item's column (of both matrices if GATED), and columns of an item
constexpr int LENGTH = (K + 7) / 8 * 8;
constexpr bool HALVES = K % 8 != 0;
static_assert(CHUNK > 0, "a column has more pieces than a block has warps");

struct Piece {
  uint4 v[LOADS];
};

__device__ __forceinline__ float dot(uint32_t a, uint32_t b, float sum) {
  sum = fmaf(__uint_as_float(a << 16), __uint_as_float(b << 16), sum);
  return fmaf(__uint_as_float(a & 0xffff0000u), __uint_as_float(b & 0xffff0000u), sum);
}

// late reports whether a row's whole vectors begin at element 4; alone is the position of the 4
// elements that are in none of them.
__device__ __forceinline__ bool late(const bf16 *row) { return HALVES && (uint64_t)row % 16 != 0; }
__device__ __forceinline__ int alone(const bf16 *row) { return late(row) ? 0 : K - 4; }

// Share is a warp's share of items.
struct Share {
  const bf16 *w;
  int cols;

  // row has the weights of the warp's column of an item.
  __device__ __forceinline__ const bf16 *row(int item) const {
    int warp = threadIdx.x / WARP, half = warp / PIECES % MATRICES;
    return w + (int64_t)(min(item * CHUNK + warp / SHARES, cols - 1) + half * cols) * K;
  }
  // at is the position in the row of a thread's vector i, in vectors.
  __device__ __forceinline__ static int at(int i) { return threadIdx.x / WARP % PIECES * PIECE + i * WARP + threadIdx.x % WARP; }
  __device__ __forceinline__ static bool has(int i) { return VECTORS % PIECE == 0 || at(i) < VECTORS; }

  __device__ __forceinline__ void load(Piece &p, int item) const {
    if (WARPS % SHARES != 0 && threadIdx.x / WARP >= CHUNK * SHARES) return;
    const bf16 *from = row(item);
    from += late(from) ? 4 : 0;
#pragma unroll
    for (int i = 0; i < LOADS; i++) p.v[i] = has(i) ? load_once16(from + at(i) * 8) : make_uint4(0, 0, 0, 0);
  }
  // multiply is the piece's sum, in lane 0; h is x, and shifted is x from element 4 on.
  __device__ __forceinline__ float multiply(const Piece &p, int item, const bf16 *h, const bf16 *shifted) const {
    const bf16 *from = late(row(item)) ? shifted : h;
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      if (!has(i)) break;
      uint4 a = p.v[i], b = *(const uint4 *)(from + at(i) * 8);
      sum = dot(a.x, b.x, sum), sum = dot(a.y, b.y, sum), sum = dot(a.z, b.z, sum), sum = dot(a.w, b.w, sum);
    }
    return warp_sum(sum);
  }
};

// put stores 4 elements of x, at k, in one or both copies.
__device__ __forceinline__ void put(bf16 *h, bf16 *shifted, int k, uint2 v) {
  *(uint2 *)(h + k) = v;
  if (HALVES && k >= 4) *(uint2 *)(shifted + k - 4) = v;
}

// counter is 0 at the start and at the end: it counts the items that are taken from it, and the
// blocks, each of which asks once without getting an item, and then wraps around.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) linear_one_row(OPERANDS, unsigned *counter) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, blocks = gridDim.x;
  let_next_begin();
  bf16 *h = (bf16 *)memory, *shifted = h + LENGTH;
  __shared__ float sums[2][WARPS];
  __shared__ int taken[2];
  Share own = {w, cols};
  int items = (cols + CHUNK - 1) / CHUNK, item[2] = {(int)blockIdx.x, (int)blockIdx.x + blocks}, next = items;
  constexpr int EACH = (K / 4 + THREADS - 1) / THREADS;
#ifdef NORM
  float scale[EACH][4], own_x[EACH][4];
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) load4(gain + k, scale[i]);
#else
  uint2 own_x[EACH];
#endif
  Piece piece[2];
  if (item[0] < items) own.load(piece[0], item[0]);
  auto take = [&] { return 2 * blocks + (int)atomicInc(counter, items - blocks - 1); };
  if (threadIdx.x == 0 && items > 2 * blocks) next = take();
  wait_for_inputs();
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) {
#ifdef NORM
      load4(x + k, own_x[i]);
#else
      own_x[i] = *(const uint2 *)(x + k);
#endif
    }
  if (item[1] < items) own.load(piece[1], item[1]);
#ifdef NORM
  float square = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if ((i * THREADS + threadIdx.x) * 4 < K)
#pragma unroll
      for (int e = 0; e < 4; e++) square += own_x[i][e] * own_x[i][e];
  __shared__ float shared[33];
  float r = rsqrtf(block_sum(square, shared) / K + epsilon);
#endif
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) {
#ifdef NORM
#pragma unroll
      for (int e = 0; e < 4; e++) own_x[i][e] *= r * scale[i][e];
      put(h, shifted, k, make_uint2(pack_bf16(own_x[i][0], own_x[i][1]), pack_bf16(own_x[i][2], own_x[i][3])));
#else
      put(h, shifted, k, own_x[i]);
#endif
    }
  auto pass = [&](int i) {
    taken[i] = next;
    if (next < items) next = take();
  };
  if (threadIdx.x == 0) pass(0);
  __syncthreads();

  for (int i = 0; item[0] < items; i = 0) {
#pragma unroll
    for (; i < 2; i++) {
      int now = item[i], col = now * CHUNK + threadIdx.x;
      if (now >= items) return;
      bool ends = threadIdx.x < CHUNK && col < cols;
      float before = z && ends ? z[col] : 0.f;
      uint2 rest[MATRICES] = {};
      if (HALVES && ends)
#pragma unroll
        for (int m = 0; m < MATRICES; m++) {
          const bf16 *row = w + (int64_t)(col + m * cols) * K;
          rest[m] = load_once8(row + alone(row));
        }
      float sum = own.multiply(piece[i], now, h, shifted);
      item[i] = taken[i];
      if (item[i] < items) own.load(piece[i], item[i]);
      if (lane == 0) sums[i][warp] = sum;
      if (threadIdx.x == 0) pass(i ^ 1);
      __syncthreads();
      if (!ends) continue;
      float total[2] = {0.f, 0.f};
#pragma unroll
      for (int m = 0; m < MATRICES; m++) {
#pragma unroll
        for (int p = 0; p < PIECES; p++) total[m] += sums[i][(threadIdx.x * MATRICES + m) * PIECES + p];
        if (HALVES) {
          uint2 b = *(const uint2 *)(h + alone(w + (int64_t)(col + m * cols) * K));
          total[m] = dot(rest[m].x, b.x, total[m]), total[m] = dot(rest[m].y, b.y, total[m]);
        }
      }
      store(y + col, RESULT(0, col, finish(total[0], total[1], before)));
    }
  }
}
