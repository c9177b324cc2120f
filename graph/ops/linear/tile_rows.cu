// 2 to 16 rows, on tensor cores: an mma's A is the rows of x, its B 8 rows of w, which are
// columns of y. Which k stands where in an mma does not matter as long as A and B agree, so
// that a thread loads VECTOR elements that lie next to each other. A block's warps share K, and
// their sums are added up for each tile of 8 columns. Where a block can't hold all of x,
// SPLIT blocks of a cluster share K, each with its SLICE of x.
//
// Macros: VECTOR elements, 8 or 4, of which K is a multiple; LOADS of them a thread and step,
// AHEAD steps of a warp on their way; SPLIT.

constexpr int TILE = 8, CELLS = 16 * TILE, PAIRS = VECTOR / 2;
constexpr int SPAN = 4 * VECTOR;                                      // of K: what four threads load at once
constexpr int STEP = SPAN * LOADS * WARPS;                            // of K: what a block does
constexpr int SLICE = ((K + SPLIT - 1) / SPLIT + SPAN - 1) / SPAN * SPAN;
constexpr int STEPS = (SLICE + STEP - 1) / STEP;
constexpr int APART = (SLICE + 63) / 64 * 64 + SPAN;                  // rows of x: no two of 8 in the same banks

struct Vector {
  uint32_t v[PAIRS];
};

__device__ __forceinline__ Vector load_once(const bf16 *p) {
  Vector r;
  if constexpr (VECTOR == 8) {
    uint4 v = load_once16(p);
    r.v[0] = v.x, r.v[1] = v.y, r.v[PAIRS - 2] = v.z, r.v[PAIRS - 1] = v.w;
  } else {
    uint2 v = load_once8(p);
    r.v[0] = v.x, r.v[1] = v.y;
  }
  return r;
}
__device__ __forceinline__ Vector load_shared(const bf16 *p) {
  Vector r;
  if constexpr (VECTOR == 8) {
    uint4 v = *(const uint4 *)p;
    r.v[0] = v.x, r.v[1] = v.y, r.v[PAIRS - 2] = v.z, r.v[PAIRS - 1] = v.w;
  } else {
    uint2 v = *(const uint2 *)p;
    r.v[0] = v.x, r.v[1] = v.y;
  }
  return r;
}

// copy_async is copy_async16 for 8 or 16 bytes.
template <int BYTES> __device__ __forceinline__ void copy_async(void *to, const void *from, bool ok) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(ok ? BYTES : 0));
}

__device__ __forceinline__ void cluster_barrier() {
#if SPLIT > 1 && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

// cluster_sum adds up what the cluster's blocks have at the same place.
__device__ __forceinline__ float cluster_sum(const float *p) {
#if SPLIT > 1 && __CUDA_ARCH__ >= 900
  float sum = 0.f;
#pragma unroll
  for (int r = 0; r < SPLIT; r++) {
    uint32_t there;
    float part;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(r));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(part) : "r"(there));
    sum += part;
  }
  return sum;
#else
  return *p;
#endif
}

// Steps are what a warp does, one after the other: STEPS a tile, and the tiles of both halves
// in turn.
struct Steps {
  const bf16 *w;
  int first, cols, k, end; // tile, and of K the block's first and how many

  // at is where a thread's elements begin in the block's part of K.
  __device__ __forceinline__ static int at(int s) {
    return s % STEPS * STEP + threadIdx.x / WARP * (SPAN * LOADS) + threadIdx.x % 4 * VECTOR;
  }
  __device__ __forceinline__ void load(Vector p[LOADS], int s) const {
    int tile = s / STEPS / MATRICES, half = s / STEPS % MATRICES, col = min((first + tile) * TILE + threadIdx.x % WARP / 4, cols - 1);
    const bf16 *row = w + (int64_t)(half * cols + col) * K + k;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      int at = Steps::at(s) + i * SPAN;
      if (at < end) {
        p[i] = load_once(row + at);
      } else {
#pragma unroll
        for (int j = 0; j < PAIRS; j++) p[i].v[j] = 0;
      }
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
#if SPLIT > 1 && __CUDA_ARCH__ >= 900
__cluster_dims__(SPLIT, 1, 1)
#endif
linear_tile_rows(OPERANDS) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  let_next_begin();
  int rank = blockIdx.x % SPLIT, group = blockIdx.x / SPLIT, groups = gridDim.x / SPLIT, all = (cols + TILE - 1) / TILE;
  int first = all * group / groups, tiles = all * (group + 1) / groups - first, steps = tiles * MATRICES * STEPS;
  Steps own = {w, first, cols, rank * SLICE, min(SLICE, K - rank * SLICE)};
  bf16 *h = (bf16 *)memory;
  float *parts = (float *)(h + 16 * APART), *results = parts + 2 * MATRICES * WARPS * CELLS;

  Vector piece[AHEAD][LOADS];
#pragma unroll
  for (int i = 0; i < AHEAD; i++)
    if (i < steps) own.load(piece[i], i);
  wait_for_inputs();
#ifdef NORM
  // What differs from row to row, 1 over the root mean square, scales the sums at the end.
  __shared__ float scales[16];
  for (int r = warp; r < 16; r += WARPS) {
    float square = 0.f;
#pragma unroll 8
    for (int k = lane * 4; k < SLICE; k += WARP * 4) {
      float v[4] = {}, g[4] = {};
      if (r < rows && k < K) load4(x + r * stride_x + k, v), load4(gain + k, g);
#pragma unroll
      for (int e = 0; e < 4; e++) square += v[e] * v[e], v[e] *= g[e];
      store4(h + r * APART + k, v);
    }
    square = warp_sum(square);
    if (lane == 0) scales[r] = rsqrtf(square / K + epsilon);
  }
#else
  for (int i = threadIdx.x; i < 16 * (SLICE / VECTOR); i += THREADS) {
    int r = i / (SLICE / VECTOR), k = i % (SLICE / VECTOR) * VECTOR;
    copy_async<2 * VECTOR>(h + r * APART + k, x + r * stride_x + own.k + k, r < rows && k < own.end);
  }
  copy_async_commit();
  copy_async_wait<0>();
#endif
  __syncthreads();

  float sum[4] = {};
  for (int s0 = 0; s0 < steps; s0 += AHEAD) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int s = s0 + i;
      if (s >= steps) break;
#pragma unroll
      for (int j = 0; j < LOADS; j++) {
        int k = Steps::at(s) + j * SPAN;
        if (SLICE % STEP != 0 && k >= SLICE) break;
        Vector upper = load_shared(h + lane / 4 * APART + k), lower = load_shared(h + (lane / 4 + 8) * APART + k);
#pragma unroll
        for (int p = 0; p < PAIRS; p += 2) {
          const uint32_t a[4] = {upper.v[p], lower.v[p], upper.v[p + 1], lower.v[p + 1]};
          mma_16x8x16(sum, a, piece[i][j].v + p);
        }
      }
      if (s + AHEAD < steps) own.load(piece[i], s + AHEAD);
      if (s % STEPS < STEPS - 1) continue;
      // A tile is done; parts are two, so that its sums are read while others are written.
      int tile = s / STEPS, half = tile % MATRICES;
      float *stage = parts + tile / MATRICES % 2 * MATRICES * WARPS * CELLS, *to = stage + (half * WARPS + warp) * CELLS + lane / 4 * TILE + lane % 4 * 2;
      *(float2 *)to = make_float2(sum[0], sum[1]);
      *(float2 *)(to + 8 * TILE) = make_float2(sum[2], sum[3]);
      sum[0] = sum[1] = sum[2] = sum[3] = 0.f;
      if (half < MATRICES - 1) continue;
      __syncthreads();
      for (int e = threadIdx.x; e < MATRICES * CELLS; e += THREADS) {
        float total = 0.f;
#pragma unroll
        for (int v = 0; v < WARPS; v++) total += stage[(e / CELLS * WARPS + v) * CELLS + e % CELLS];
        results[(tile / MATRICES * MATRICES) * CELLS + e] = total;
      }
    }
  }
  cluster_barrier();

  for (int e = rank * THREADS + threadIdx.x; e < tiles * CELLS; e += SPLIT * THREADS) {
    int row = e % CELLS / TILE, col = (first + e / CELLS) * TILE + e % TILE;
    float total[2] = {};
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
      total[m] = cluster_sum(results + (e / CELLS * MATRICES + m) * CELLS + e % CELLS);
#ifdef NORM
      total[m] *= scales[row];
#endif
    }
    if (row < rows && col < cols)
      store(y + row * stride_y + col, RESULT(row, col, finish(total[0], total[1], z ? z[row * stride_z + col] : 0.f)));
  }
  if (SPLIT > 1) cluster_barrier(); // nobody leaves while others read what it has
}
