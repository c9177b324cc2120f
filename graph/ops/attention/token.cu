// One token of each row, on Hopper: computes what tiles_carry.cu and attention_carry_join do, in
// one kernel. The blocks of a cluster share one head's keys. Each warp loops over some of them in
// its own pipeline; the warps' results are combined in shared memory.
//
// The ring is read in slot order rather than position order, since the order of keys makes no
// difference. The new token's slot is that of the token that has left the window.
//
// Macros: PARTS blocks per cluster; STEP slots that a warp processes at a time, with STAGES steps
// in flight.

constexpr int STAGE = 2 * STEP * D;              // keys, then values
constexpr int OWN = (GROUP + PARTS - 1) / PARTS; // queries whose results a block finishes
// RESULT is the number of floats in a warp's result for one query: o, the maximum logit and the sum
// of weights. It is padded so that 8 consecutive results fall into different banks.
constexpr int RESULT = D + 8;

// Slots are the slots of a head's ring that a warp reads: STEP of every WARPS * STEP, starting at
// `first`.
struct Slots {
  const bf16 *key, *value;
  int64_t stride_key, stride_value;
  int first, used;

  __device__ __forceinline__ int slot(int step) const { return first + step * WARPS * STEP; }
  // copy starts copying a step's keys and values, with zeros for slots that no token has used.
  __device__ __forceinline__ void copy(bf16 *stage, int step) const {
    constexpr int PASS = WARP / CHUNKS;
    int row = threadIdx.x % WARP / CHUNKS, c = threadIdx.x % CHUNKS, at = slot(step) + row;
    const bf16 *from_key = key + at * stride_key + c * 8, *from_value = value + at * stride_value + c * 8;
#pragma unroll
    for (int i = 0; i < STEP; i += PASS) copy_async16(chunk(stage, row + i, c), from_key + i * stride_key, at + i < used);
#pragma unroll
    for (int i = 0; i < STEP; i += PASS) copy_async16(chunk(stage + STEP * D, row + i, c), from_value + i * stride_value, at + i < used);
  }
};

// With ROTARY q and k are rotated first. scale is log2(e) / sqrt(D). Data in the ring is fetched
// before the inputs are ready, since no preceding kernel writes it.
extern "C" __global__ void __launch_bounds__(THREADS) __cluster_dims__(PARTS, 1, 1)
attention_token(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *key, bf16 *value, const int *pos, bf16 *o, uint64_t log2_base, int slots,
                int windowed, float scale, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_key, int64_t stride_value,
                int64_t stride_o) {
  let_next_begin();
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, rank = blockIdx.x, h = blockIdx.y, start = pos[blockIdx.z];
  bf16 *queries = memory, *ring = queries + 16 * D + warp * STAGES * STAGE;
  float *results = (float *)(queries + 16 * D + WARPS * STAGES * STAGE); // [PARTS WARPS][OWN][RESULT]
  __shared__ uint64_t barrier;
  __shared__ __align__(16) bf16 fresh[2][D]; // the token's key and value
  int owned = max(0, min(OWN, GROUP - rank * OWN));
  if (threadIdx.x == 0) {
    mbarrier_init(shared_address(&barrier), 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    mbarrier_expect(shared_address(&barrier), owned * PARTS * WARPS * (D + 2) * 4);
  }
  __syncwarp();
  cluster_arrive();

  // A block's slots are contiguous, in whole steps.
  int used = min(start + 1, slots), newest = start % slots, steps = (used + STEP - 1) / STEP, each = (steps + PARTS - 1) / PARTS;
  int first = min(rank * each, steps) + warp, last = min((rank + 1) * each, steps), count = (last - first + WARPS - 1) / WARPS;
  key += (int64_t)blockIdx.z * slots * stride_key + h * D, value += (int64_t)blockIdx.z * slots * stride_value + h * D;
  Slots own = {key, value, stride_key, stride_value, first * STEP, used};
#pragma unroll
  for (int i = 0; i < STAGES; i++) {
    if (i < count) own.copy(ring + i * STAGE, i);
    copy_async_commit();
  }
#ifdef ROTARY
  __shared__ Turning turning;
  turning.find(start, __longlong_as_double(log2_base));
  __syncthreads();
#endif
  wait_for_inputs();
  // 16 rows of queries (zeros after the last), the new key and the new value.
  constexpr int HALF = CHUNKS / 2;
  q += blockIdx.z * stride_q + h * GROUP * D, k += blockIdx.z * stride_k + h * D, v += blockIdx.z * stride_v + h * D;
  for (int i = threadIdx.x; i < 18 * HALF; i += THREADS) {
    int row = i / HALF, c = i % HALF;
    const bf16 *from = row < 16 ? q + row * D : row == 16 ? k : v;
    bf16 *lower = row < 16 ? chunk(queries, row, c) : fresh[row - 16] + c * 8;
    bf16 *upper = row < 16 ? chunk(queries, row, HALF + c) : lower + D / 2;
    if (row >= GROUP && row < 16) {
      *(uint4 *)lower = *(uint4 *)upper = make_uint4(0, 0, 0, 0);
      continue;
    }
#ifdef ROTARY
    if (row <= 16) {
      turning.turn(from, c * 8, lower, upper);
      continue;
    }
#endif
    *(uint4 *)lower = *(const uint4 *)(from + c * 8), *(uint4 *)upper = *(const uint4 *)(from + D / 2 + c * 8);
  }
  __syncthreads();

  Queries mine;
  for (int i = 0, stage = 0; i < count; i++) {
    copy_async_wait<STAGES - 1>();
    __syncwarp();
    bf16 *keys = ring + stage * STAGE, *values = keys + STEP * D;
    int slot = own.slot(i);
    if (slot <= newest && newest < slot + STEP) {
      for (int i = lane; i < 2 * CHUNKS; i += WARP) {
        int c = i % CHUNKS;
        bool is_key = i < CHUNKS;
        uint4 x = *(const uint4 *)(fresh[!is_key] + c * 8);
        *(uint4 *)chunk(is_key ? keys : values, newest - slot, c) = x;
        *(uint4 *)((is_key ? key + newest * stride_key : value + newest * stride_value) + c * 8) = x;
      }
      __syncwarp();
    }
    mine.take(queries, 0, keys, values, scale, slot + STEP > used, [&](int, int j) { return slot + j >= used; });
    __syncwarp();
    if (i + STAGES < count) own.copy(keys, i + STAGES);
    copy_async_commit();
    if (++stage == STAGES) stage = 0;
  }

  cluster_await();
#pragma unroll
  for (int half = 0; half < (GROUP > 8 ? 2 : 1); half++) {
    int row = lane / 4 + 8 * half;
    float total = mine.total(0, half), *to = results + ((rank * WARPS + warp) * OWN + row % OWN) * RESULT;
    if (row >= GROUP) continue;
#pragma unroll
    for (int c = 0; c < D / 8; c++) store_async(to + 8 * c + lane % 4 * 2, &barrier, row / OWN, mine.sum[0][c][2 * half], mine.sum[0][c][2 * half + 1]);
    if (lane % 4 == 0) store_async(to + D, &barrier, row / OWN, mine.weights[0].greatest[half], total);
  }
  mbarrier_await_stores(&barrier);

  // A sequence longer than the cache, without a window, gives NaN, since a kernel can't report an
  // error.
  bool fits = windowed || start < slots;
  for (int e = threadIdx.x; e < owned * (D / 2); e += THREADS) {
    int row = e / (D / 2), c = e % (D / 2) * 2;
    const float *from = results + row * RESULT;
    float greatest = -INF, sum = 0.f, x = 0.f, y = 0.f;
#pragma unroll
    for (int p = 0; p < PARTS * WARPS; p++) greatest = fmaxf(greatest, from[p * OWN * RESULT + D]);
#pragma unroll
    for (int p = 0; p < PARTS * WARPS; p++) {
      const float *part = from + p * OWN * RESULT;
      float weight = fast_exp2((part[D] - greatest) * scale); // 0 for a part without keys
      sum += weight * part[D + 1], x += weight * part[c], y += weight * part[c + 1];
    }
    float inverse = fits ? 1.f / sum : INF - INF;
    *(uint32_t *)(o + blockIdx.z * stride_o + (h * GROUP + rank * OWN + row) * D + c) = pack_bf16(x * inverse, y * inverse);
  }
}
