// Products of whole warpgroups (128 threads), which Hopper's tensor cores (sm_90a) need for their
// full speed. They read shared memory themselves, asynchronously. The order is: wgmma_fence,
// products, wgmma_commit, and wgmma_wait before touching the results or the registers of a left
// operand.
//
// Of 64 rows, lane l of warp w holds what it would hold of rows 16 w to 16 w + 15 in tiles.cu.

constexpr int PANEL = 64; // channels

// Here a tile consists of panels of PANEL channels, each with rows of 128 bytes. Chunk c of a
// panel's row is stored at position c ^ row % 8: the "128-byte swizzle" that the products expect.
//
// load_panels starts copying Rows rows of x, from row `first` on, to a tile. It is called by all
// threads of the block, or by Threads of them, numbered from 0.
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

// describe returns the descriptor of a shared memory operand: 8 rows of 128 bytes are contiguous,
// and where the sum runs over rows, the next panel is `leading` bytes further. Adding n to the
// descriptor moves it by 16 n bytes.
__device__ __forceinline__ uint64_t describe(const bf16 *tile, int leading = 16) {
  return (shared_address(tile) & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// multiply_rows starts x y', for 64 rows of x and Columns rows of y; x and y are in tiles of RowsX
// and RowsY rows.
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

// settle keeps the compiler from moving accesses to the registers of a product across this point.
template <int Tiles> __device__ __forceinline__ void settle(float x[Tiles][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; i++) asm volatile("" : "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])::"memory");
}
template <int Tiles> __device__ __forceinline__ void settle(uint32_t x[Tiles][4]) {
#pragma unroll
  for (int i = 0; i < Tiles; i++) asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
}

// Kept is 64 rows of a tile of Rows rows that are the left operand of many products. For heads of
// 64 channels the rows fit in registers; wider ones stay in shared memory.
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

  // multiply starts x y', for Columns rows of y, which are in a tile of RowsY rows.
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

// multiply_weights starts sum += w y: w is 64 rows of Rows columns in registers, y is Rows rows of
// a tile of Tile rows.
template <int Rows, int Tile = Rows>
__device__ __forceinline__ void multiply_weights(float sum[D / 8][4], const uint32_t w[Rows / 16][4], const bf16 *y) {
  constexpr int CHANNELS = D == 64 ? 64 : 128; // per product
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

// multiply_columns starts w' y: w is a panel of Rows rows of 64 columns, and y one of 64 channels.
template <int Rows> __device__ __forceinline__ void multiply_columns(float sum[8][4], const bf16 *w, const bf16 *y) {
  uint64_t a = describe(w), b = describe(y);
#pragma unroll
  for (int j = 0; j < Rows; j += 16) wgmma_64x64_columns(sum, a + j * PANEL / 8, b + j * PANEL / 8, j > 0);
}

// store_left writes a warp's left operand of 16 rows of Columns columns to a panel, starting at
// `row`.
template <int Columns> __device__ __forceinline__ void store_left(bf16 *panel, int row, const uint32_t w[Columns / 16][4]) {
  static_assert(Columns <= PANEL, "wider than a panel");
  int lane = threadIdx.x % WARP, r = lane % 16;
#pragma unroll
  for (int j = 0; j < Columns / 16; j++) stmatrix4(panel + (row + r) * PANEL + ((2 * j + lane / 16 ^ r % 8) << 3), w[j]);
}

// round_weights rounds the accumulators of Columns columns to a left operand.
template <int Columns> __device__ __forceinline__ void round_weights(uint32_t w[Columns / 16][4], const float x[Columns / 8][4]) {
#pragma unroll
  for (int j = 0; j < Columns / 16; j++) round_left(w[j], x + 2 * j);
}

#ifdef ROTARY
// turn_back applies the inverse rotation to a row of a query's or key's gradient, by its position:
// to channels i and i + D/2, of which the lane holds two adjacent ones in each accumulator of 8
// columns. frequencies [D/2] are in turns per token; only the fraction of a turn matters.
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
