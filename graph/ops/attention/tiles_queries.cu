// Shared by the kernels whose blocks hold queries and loop over keys and values.

constexpr int ROWS = 16 * ROW_TILES;  // queries per warp
constexpr int QUERIES = WARPS * ROWS; // per block
constexpr int SCORES = STEP / 8;      // accumulators for STEP keys

// Queries is a warp's state for its ROWS queries: their softmax, and the weighted sums of values.
struct Queries {
  float sum[ROW_TILES][D / 8][4];
  Weights weights[ROW_TILES];

  __device__ __forceinline__ Queries() {
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
      clear<D / 8>(sum[r]);
      weights[r].greatest[0] = weights[r].greatest[1] = -INF;
      weights[r].sum[0] = weights[r].sum[1] = 0.f;
    }
  }

  // take processes STEP keys and values. The queries are in a tile, starting at `row`. hides(i, j)
  // reports that the warp's query i doesn't see key j; it isn't called unless edge is set. scale is
  // log2(e) / sqrt(D).
  template <typename Hides>
  __device__ __forceinline__ void take(bf16 *queries, int row, bf16 *keys, bf16 *values, float scale, bool edge, Hides hides) {
    int lane = threadIdx.x % WARP;
    float s[ROW_TILES][SCORES][4];
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) clear<SCORES>(s[r]);
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      uint32_t a[ROW_TILES][4], b[4];
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) load_left(a[r], queries, row + 16 * r, c);
#pragma unroll
      for (int j = 0; j < STEP; j += 16) {
        load_transposed(b, keys, j, c);
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) multiply(s[r] + j / 8, a[r], b);
      }
    }

    if (edge) {
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
        for (int j = 0; j < SCORES; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (hides(16 * r + lane / 4 + e / 2 * 8, 8 * j + lane % 4 * 2 + e % 2)) s[r][j][e] = -INF;
        }
      }
    }

#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
      float shrink[2];
      weights[r].update<SCORES>(s[r], scale, shrink);
#pragma unroll
      for (int c = 0; c < D / 8; c++) {
        sum[r][c][0] *= shrink[0], sum[r][c][1] *= shrink[0];
        sum[r][c][2] *= shrink[1], sum[r][c][3] *= shrink[1];
      }
    }
#pragma unroll
    for (int j = 0; j < STEP; j += 16) {
      uint32_t a[ROW_TILES][4], b[4];
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) round_left(a[r], s[r] + j / 8);
#pragma unroll
      for (int c = 0; c < D; c += 16) {
        load_right(b, values, j, c);
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) multiply(sum[r] + c / 8, a[r], b);
      }
    }
  }

  // total is the sum of weights of row lane / 4 + 8 half of tile r.
  __device__ __forceinline__ float total(int r, int half) const {
    float x = weights[r].sum[half];
    x += __shfl_xor_sync(FULL, x, 1);
    return x + __shfl_xor_sync(FULL, x, 2);
  }
};
