// Products of whole warpgroups, 128 threads, which Hopper's tensor cores (sm_90a) need
// for their full speed. They read shared memory by themselves, asynchronously: their
// order is wgmma_fence, products, wgmma_commit, and wgmma_wait before the results, or
// the registers of a left operand, are touched.
//
// Lane l of warp w holds, of 64 rows, what it would hold in tiles.cu of rows 16 w to
// 16 w + 15.

constexpr int PANEL = 64; // channels

// A tile here is panels of PANEL channels, each of rows of 128 bytes. Chunk c of a
// panel's row is in place c ^ row % 8: the "128-byte swizzle" that the products expect.
//
// load_panels begins to copy Rows rows of x, from row first on, to a tile. All threads of
// the block do it, or Threads of them, numbered from 0 on.
template <int Rows, int Threads = THREADS>
__device__ __forceinline__ void load_panels(bf16 *tile, const bf16 *x, int64_t stride, int first, int tokens, int thread = threadIdx.x) {
  constexpr int PASS = Threads / CHUNKS; // rows that the threads copy at once
  static_assert(Rows % PASS == 0, "a tile is not a multiple of the rows that are copied at once");
  int row = thread / CHUNKS, c = thread % CHUNKS;
  tile += c / 8 * Rows * PANEL;
  x += (first + row) * stride + c * 8;
#pragma unroll (Threads < 128 ? 4 : Rows / PASS)
  for (int i = 0; i < Rows; i += PASS, x += PASS * stride)
    copy_async16(tile + (row + i) * PANEL + ((c ^ row + i) % 8 << 3), x, first + row + i < tokens);
}

// describe is a shared memory operand: 8 rows of 128 bytes follow one another, and,
// where rows are what is summed over, the next panel is leading bytes on. Adding n
// to it moves it by 16 n bytes.
__device__ __forceinline__ uint64_t describe(const bf16 *tile, int leading = 16) {
  return (shared_address(tile) & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// multiply_rows begins x y', of 64 rows of x and Columns rows of y; x and y are in
// tiles of RowsX and RowsY rows.
template <int RowsX, int Columns, int RowsY = Columns>
__device__ __forceinline__ void multiply_rows(float sum[Columns / 8][4], const bf16 *x, const bf16 *y) {
  uint64_t a = describe(x), b = describe(y);
#pragma unroll
  for (int c = 0; c < D; c += 16) {
    uint64_t left = a + (c / PANEL * RowsX * PANEL + c % PANEL) / 8, right = b + (c / PANEL * RowsY * PANEL + c % PANEL) / 8;
    if constexpr (Columns == 64) wgmma_64x64(sum, left, right, c > 0);
    if constexpr (Columns == 128) wgmma_64x128(sum, left, right, c > 0);
  }
}

// settle keeps the compiler from moving what it does with the registers of a product
// across this point.
template <int Tiles> __device__ __forceinline__ void settle(float x[Tiles][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; i++) asm volatile("" : "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])::"memory");
}
template <int Tiles> __device__ __forceinline__ void settle(uint32_t x[Tiles][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; i++) asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
}

// Kept is 64 rows of a tile of Rows that many products have on the left. Registers have room
// for rows of 64 channels; wider ones stay in shared memory.
template <int Rows> struct Kept {
#if HEAD_DIM == 64
  uint32_t x[D / 16][4];
  __device__ __forceinline__ explicit Kept(const bf16 *tile) {
    int lane = threadIdx.x % WARP, row = threadIdx.x / WARP % 4 * 16 + lane % 16;
#pragma unroll
    for (int c = 0; c < D / 16; c++) ldmatrix4(x[c], tile + row * PANEL + ((2 * c + lane / 16 ^ row % 8) << 3));
    settle<D / 16>(x);
  }
#else
  const bf16 *x;
  __device__ __forceinline__ explicit Kept(const bf16 *tile) : x(tile) {}
#endif

  // multiply begins x y', of Columns rows of y, which are in a tile of RowsY.
  template <int Columns, int RowsY> __device__ __forceinline__ void multiply(float sum[Columns / 8][4], const bf16 *y) const {
#if HEAD_DIM == 64
    uint64_t b = describe(y);
#pragma unroll
    for (int c = 0; c < D; c += 16) wgmma_64x64_rows(sum, x[c / 16], b + c / 8, c > 0);
#else
    multiply_rows<Rows, Columns, RowsY>(sum, x, y);
#endif
  }
};

// multiply_weights begins sum += w y: w is 64 rows of Rows columns in registers, y is Rows
// rows of a tile of Tile rows.
template <int Rows, int Tile = Rows>
__device__ __forceinline__ void multiply_weights(float sum[D / 8][4], const uint32_t w[Rows / 16][4], const bf16 *y) {
  constexpr int CHANNELS = D == 64 ? 64 : 128; // of a product
#pragma unroll
  for (int c = 0; c < D; c += CHANNELS) {
    uint64_t b = describe(y + c / PANEL * Tile * PANEL, Tile * PANEL * 2);
#pragma unroll
    for (int j = 0; j < Rows; j += 16) {
      if constexpr (CHANNELS == 64) wgmma_64x64(sum, w[j / 16], b + j * PANEL / 8, true);
      if constexpr (CHANNELS == 128) wgmma_64x128(sum + c / 8, w[j / 16], b + j * PANEL / 8, true);
    }
  }
}

// multiply_columns begins w' y: w is a panel of Rows rows of 64 columns, and y of 64
// channels.
template <int Rows> __device__ __forceinline__ void multiply_columns(float sum[8][4], const bf16 *w, const bf16 *y) {
  uint64_t a = describe(w), b = describe(y);
#pragma unroll
  for (int j = 0; j < Rows; j += 16) wgmma_64x64_columns(sum, a + j * PANEL / 8, b + j * PANEL / 8, j > 0);
}

// store_left writes a warp's left operand of 16 rows of Columns columns to a panel, from
// row on.
template <int Columns> __device__ __forceinline__ void store_left(bf16 *panel, int row, const uint32_t w[Columns / 16][4]) {
  static_assert(Columns <= PANEL, "wider than a panel");
  int lane = threadIdx.x % WARP, r = lane % 16;
#pragma unroll
  for (int j = 0; j < Columns / 16; j++) stmatrix4(panel + (row + r) * PANEL + ((2 * j + lane / 16 ^ r % 8) << 3), w[j]);
}

// round_weights makes a left operand of the accumulators of Columns columns.
template <int Columns> __device__ __forceinline__ void round_weights(uint32_t w[Columns / 16][4], const float x[Columns / 8][4]) {
#pragma unroll
  for (int j = 0; j < Columns / 16; j++) round_left(w[j], x + 2 * j);
}

#ifdef ROTARY
// turn_back turns a row of a query's or a key's gradient back by its position: channels i
// and i + D/2, of which the lane has two next to each other in each of an accumulator's 8.
// frequencies [D/2] are in turns a token; only the fraction of a turn matters.
__device__ __forceinline__ void turn_back(float x[D / 8][4], const double *frequencies, int first) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int j = 0; j < D / 16; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      double turns = (first + lane / 4 + e / 2 * 8) * frequencies[8 * j + lane % 4 * 2 + e % 2];
      float angle = (float)(turns - rint(turns)) * 6.2831853f, sin = __sinf(angle), cos = __cosf(angle);
      float x1 = x[j][e], x2 = x[j + D / 16][e];
      x[j][e] = x1 * cos + x2 * sin, x[j + D / 16][e] = x2 * cos - x1 * sin;
    }
  }
}
#endif
