// One row. A piece of a column's weights is what a warp loads at once; the pieces of a block's
// columns go to its warps in turn, and their sums are added up at the end. Rows of w of K = 8 n + 4
// elements begin 8 bytes beside a multiple of 16, every other one: of such a row the first 4
// elements are taken by themselves, of others the last, and x lies there twice, for both.
//
// Macros: LOADS vectors of 16 bytes a piece and thread, AHEAD pieces of a warp on their way.

constexpr int VECTORS = K / 8, PIECE = WARP * LOADS, PIECES = (VECTORS + PIECE - 1) / PIECE;
constexpr bool HALVES = K % 8 != 0;

struct Piece {
  uint4 v[LOADS];
};

__device__ __forceinline__ float dot(uint32_t a, uint32_t b, float sum) {
  sum = fmaf(__uint_as_float(a << 16), __uint_as_float(b << 16), sum);
  return fmaf(__uint_as_float(a & 0xffff0000u), __uint_as_float(b & 0xffff0000u), sum);
}

// Columns are those that a block makes: count from first on, or of each half.
struct Columns {
  const bf16 *w;
  int first, count, cols;

  __device__ __forceinline__ const bf16 *row(int c) const {
    return w + (int64_t)(first + c + (MATRICES > 1 && c >= count ? cols - count : 0)) * K;
  }
  // late reports whether column c's whole vectors begin at element 4.
  __device__ __forceinline__ bool late(int c) const { return HALVES && (uint64_t)row(c) % 16 != 0; }
  // alone is column c's 4 elements outside of whole vectors.
  __device__ __forceinline__ int alone(int c) const { return late(c) ? 0 : K - 4; }

  __device__ __forceinline__ void load(Piece &p, int u) const {
    int c = u / PIECES, at = u % PIECES * PIECE + threadIdx.x % WARP;
    const bf16 *from = row(c) + (late(c) ? 4 : 0);
#pragma unroll
    for (int i = 0; i < LOADS; i++)
      p.v[i] = VECTORS % PIECE == 0 || at + i * WARP < VECTORS ? load_once16(from + (at + i * WARP) * 8) : make_uint4(0, 0, 0, 0);
  }
};

// put stores 4 elements of x, at k, in its one or two places.
__device__ __forceinline__ void put(bf16 *h, bf16 *shifted, int k, uint2 v) {
  *(uint2 *)(h + k) = v;
  if (HALVES && k >= 4) *(uint2 *)(shifted + k - 4) = v;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) linear_one_row(OPERANDS) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  let_next_begin();
  int first = (int)((int64_t)cols * blockIdx.x / gridDim.x), count = (int)((int64_t)cols * (blockIdx.x + 1) / gridDim.x) - first;
  Columns own = {w, first, count, cols};
  int units = count * MATRICES * PIECES;
  constexpr int LENGTH = (K + 7) / 8 * 8;
  bf16 *h = (bf16 *)memory, *shifted = h + LENGTH;
  float *parts = (float *)(h + (HALVES ? 2 : 1) * LENGTH);

  Piece piece[AHEAD];
#pragma unroll
  for (int i = 0; i < AHEAD; i++)
    if (warp + i * WARPS < units) own.load(piece[i], warp + i * WARPS);
  uint2 alone[MATRICES] = {};
  if (HALVES)
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
      if (threadIdx.x < count) alone[m] = load_once8(own.row(threadIdx.x + m * count) + own.alone(threadIdx.x + m * count));
#ifdef TAPS
  // Taps, tail and bias of a block's channels, in that order: of the kernels before this one, none writes tails.
  float *channel = parts + units;
  for (int i = threadIdx.x; i < count * 2 * TAPS; i += THREADS) {
    int c = first + i % count, part = i / count;
    if (c >= channels) continue;
    if (part < TAPS) channel[i] = taps[c * TAPS + part];
    else channel[i] = part < 2 * TAPS - 1 ? tail[(part - TAPS) * channels + c] : bias[c];
  }
#endif
#ifdef NORM
  constexpr int EACH = (K / 4 + THREADS - 1) / THREADS;
  float scale[EACH][4], own_x[EACH][4];
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) load4(gain + k, scale[i]);
#endif
  wait_for_inputs();
  float before = z && threadIdx.x < count ? z[first + threadIdx.x] : 0.f;
#ifdef NORM
  float square = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) {
      load4(x + k, own_x[i]);
#pragma unroll
      for (int e = 0; e < 4; e++) square += own_x[i][e] * own_x[i][e];
    }
  __shared__ float shared[33];
  float r = rsqrtf(block_sum(square, shared) / K + epsilon);
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (int k = (i * THREADS + threadIdx.x) * 4; k < K) {
#pragma unroll
      for (int e = 0; e < 4; e++) own_x[i][e] *= r * scale[i][e];
      put(h, shifted, k, make_uint2(pack_bf16(own_x[i][0], own_x[i][1]), pack_bf16(own_x[i][2], own_x[i][3])));
    }
#else
  for (int k = threadIdx.x * 4; k < K; k += THREADS * 4) put(h, shifted, k, *(const uint2 *)(x + k));
#endif
  __syncthreads();

  for (int u0 = warp; u0 < units; u0 += AHEAD * WARPS) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int u = u0 + i * WARPS;
      if (u >= units) break;
      const bf16 *from = own.late(u / PIECES) ? shifted : h;
      int at = u % PIECES * PIECE + lane;
      float sum = 0.f;
#pragma unroll
      for (int j = 0; j < LOADS; j++) {
        if (VECTORS % PIECE != 0 && at + j * WARP >= VECTORS) break;
        uint4 a = piece[i].v[j], b = *(const uint4 *)(from + (at + j * WARP) * 8);
        sum = dot(a.x, b.x, sum), sum = dot(a.y, b.y, sum), sum = dot(a.z, b.z, sum), sum = dot(a.w, b.w, sum);
      }
      if (u + AHEAD * WARPS < units) own.load(piece[i], u + AHEAD * WARPS);
      sum = warp_sum(sum);
      if (lane == 0) parts[u] = sum;
    }
  }
  __syncthreads();

  for (int c = threadIdx.x; c < count; c += THREADS) {
    float total[2] = {0.f, 0.f};
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
      int column = c + m * count;
#pragma unroll
      for (int i = 0; i < PIECES; i++) total[m] += parts[column * PIECES + i];
      if (HALVES) {
        int k = own.alone(column);
        uint2 a = c < THREADS ? alone[m] : load_once8(own.row(column) + k), b = *(const uint2 *)(h + k);
        total[m] = dot(a.x, b.x, total[m]), total[m] = dot(a.y, b.y, total[m]);
      }
    }
    float sum = finish(total[0], total[1], c < THREADS || !z ? before : z[first + c]);
#ifdef TAPS
    if (first + c < channels) {
      Channel it;
#pragma unroll
      for (int j = 0; j < TAPS; j++) it.taps[j] = channel[j * count + c], it.past[j] = j < TAPS - 1 ? channel[(TAPS + j) * count + c] : 0.f;
      it.bias = channel[(2 * TAPS - 1) * count + c];
      sum = it.take(sum, tail, first + c, channels);
    }
#endif
    store(y + first + c, sum);
  }
}
