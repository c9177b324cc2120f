// The backward pass for heads so wide that dk and dv of 64 keys would fill the registers of
// wgmma_backward.cu: one kernel each for dq, dk and dv, selected by GRADIENT. A block handles OWN
// rows (queries for dq, keys for dk and dv) and loops over the rows that they see or that see them,
// STEP at a time. The logits, and for dq and dk their gradients, are products with the block's
// rows; as weights they are the operand of the product that accumulates the result.
//
// Two warpgroups multiply, with 64 of the block's rows each. In the third, two warps copy the
// operand of the logits (keys for dq, queries for dk and dv) and two the other operand.

#define QUERIES 0
#define KEYS 1
#define VALUES 2

constexpr bool OF_QUERIES = GRADIENT == QUERIES;
constexpr int OWN = 128;         // per block
constexpr int SCORES = STEP / 8; // accumulators for STEP columns
constexpr int PRODUCTS = 256;    // threads that multiply
constexpr int COPIES = 64;       // threads that copy one of the two operands
static_assert(WARPS == (PRODUCTS + 2 * COPIES) / WARP, "the kernel is cut for these");

// Steps of each operand in shared memory. The operand that is summed stays there longest.
constexpr int FIRST_STAGES = 2, SECOND_STAGES = GRADIENT == VALUES ? 2 : 1;

// The block's named barriers.
constexpr int FIRST_CAME = 1;                               // a step's first operand has arrived; one for each warpgroup
constexpr int SECOND_CAME = FIRST_CAME + 2 * FIRST_STAGES;  // the second operand has arrived
constexpr int FIRST_LEFT = SECOND_CAME + 2 * SECOND_STAGES; // both warpgroups are done with it
constexpr int SECOND_LEFT = FIRST_LEFT + FIRST_STAGES;
constexpr int DONE = SECOND_LEFT + SECOND_STAGES; // the block's rows have arrived; at the end, they are free
static_assert(DONE < 16, "a block has 16 barriers");

// copy_steps is run by COPIES threads. It copies the steps of total / steps heads, which are D
// elements apart, starting at row `first`, and with each a step of the statistics y, whose heads
// are `padded` apart.
template <int Stages>
__device__ __forceinline__ void copy_steps(bf16 *tiles, float *statistics, const bf16 *x, const float *y, int64_t stride, int first,
                                           int steps, int total, int tokens, int padded, int came, int left) {
  int thread = threadIdx.x % COPIES;
  for (int i = 0, step = 0, stage = 0; i < total; i++) {
    if (i >= Stages) barrier_wait(left + stage, PRODUCTS + COPIES);
    int at = first + step * STEP;
    load_panels<STEP, COPIES>(tiles + stage * STEP * D, x, stride, at, tokens, thread);
    if (!OF_QUERIES && thread < STEP / 4) copy_async16(statistics + STEP * stage + thread * 4, y + at + thread * 4);
    copy_async_commit();
    copy_async_wait<0>();
    fence_async_proxy();
    barrier_arrive(came + 2 * stage, PRODUCTS / 2 + COPIES);
    barrier_arrive(came + 2 * stage + 1, PRODUCTS / 2 + COPIES);
    stage = stage == Stages - 1 ? 0 : stage + 1;
    if (++step == steps) step = 0, x += D, y += padded;
  }
}

// Query heads that share a key head are cut into parts to get more blocks. With more than one part,
// sums go to partials [parts B K tiles][OWN D], in accumulator order. scale is 1 / sqrt(D). lse2
// and delta are [B H padded].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_gradient(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *dout, const float *lse2, const float *delta, bf16 *dx,
                   float *partials, int tokens, int padded, int group, int parts, int window, float scale, const int *start,
                   const double *frequencies, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_do, int64_t stride_dx) {
  bf16 *scored = memory, *weighed = scored + OWN * D; // the block's own rows: q and do, or k and v
  bf16 *firsts = GRADIENT == VALUES ? weighed : weighed + OWN * D, *seconds = firsts + FIRST_STAGES * STEP * D;
  float *lse2_steps = (float *)(seconds + SECOND_STAGES * STEP * D), *delta_steps = lse2_steps + FIRST_STAGES * STEP;
  int warp = __shfl_sync(FULL, (int)threadIdx.x / WARP, 0), lane = threadIdx.x % WARP;
  int block = OF_QUERIES ? gridDim.x - 1 - blockIdx.x : blockIdx.x, first = block * OWN; // blocks with the most steps start first
  int key_head = OF_QUERIES ? blockIdx.y / group : blockIdx.y / parts, part = OF_QUERIES ? 0 : blockIdx.y % parts;
  int size = (group + parts - 1) / parts, head = OF_QUERIES ? blockIdx.y : key_head * group + part * size;
  int heads = OF_QUERIES ? 1 : min(size, group - part * size), all_heads = OF_QUERIES ? gridDim.y : gridDim.y / parts * group;
  int64_t text = (int64_t)blockIdx.z * tokens;
  start += text;
  q += text * stride_q + head * D, dout += text * stride_do + head * D;
  k += text * stride_k + key_head * D, v += text * stride_v + key_head * D;
  lse2 += ((int64_t)blockIdx.z * all_heads + head) * padded, delta += ((int64_t)blockIdx.z * all_heads + head) * padded;

  int from = (OF_QUERIES ? first_key(start, first, tokens, window) : first) / STEP;
  int to = (OF_QUERIES ? min(first + OWN, tokens) - 1 : query_end(start, first + OWN - 1, tokens, window) - 1) / STEP;
  int steps = to - from + 1, total = steps * heads;

  if (warp >= PRODUCTS / WARP) {
    registers_release<40>();
    if (threadIdx.x < PRODUCTS + COPIES) {
      copy_steps<FIRST_STAGES>(firsts, lse2_steps, OF_QUERIES ? k : q, lse2, OF_QUERIES ? stride_k : stride_q, from * STEP, steps, total,
                               tokens, padded, FIRST_CAME, FIRST_LEFT);
    } else {
      copy_steps<SECOND_STAGES>(seconds, delta_steps, OF_QUERIES ? v : dout, delta, OF_QUERIES ? stride_v : stride_do, from * STEP, steps,
                                total, tokens, padded, SECOND_CAME, SECOND_LEFT);
    }
    return;
  }

  registers_demand<232>();
  load_panels<OWN, PRODUCTS>(scored, OF_QUERIES ? q : k, OF_QUERIES ? stride_q : stride_k, first, tokens);
  if (GRADIENT != VALUES) load_panels<OWN, PRODUCTS>(weighed, OF_QUERIES ? dout : v, OF_QUERIES ? stride_do : stride_v, first, tokens);
  copy_async_commit();
  int own = first + warp * 16, second = warp / 4;
  int all = OF_QUERIES ? first_key(start, own + 15, tokens, window) : 0;
  float own_lse2[2], own_delta[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    own_lse2[half] = OF_QUERIES ? lse2[own + lane / 4 + 8 * half] : 0.f;
    own_delta[half] = OF_QUERIES ? delta[own + lane / 4 + 8 * half] : 0.f;
  }
  scored += second * 64 * PANEL, weighed += second * 64 * PANEL;
  copy_async_wait<0>();
  fence_async_proxy();
  barrier_wait(DONE, PRODUCTS);

  float sum[D / 8][4];
  uint32_t w[STEP / 16][4];
  clear<D / 8>(sum);
  settle<D / 8>(sum);
  int i0 = from * STEP, left = total, stage = 0;
  do {
    int stage2 = SECOND_STAGES == 2 ? stage : 0;
    bf16 *one = firsts + stage * STEP * D, *two = seconds + stage2 * STEP * D;
    float p[SCORES][4], ds[SCORES][4];
    barrier_wait(FIRST_CAME + 2 * stage + second, PRODUCTS / 2 + COPIES);
    wgmma_fence();
    multiply_rows<OWN, STEP>(p, scored, one);
    wgmma_commit();
    wgmma_wait<1>(); // the product of the previous step is done
    settle<D / 8>(sum), settle<STEP / 16>(w);
    if (left < total && left > 1) barrier_arrive((GRADIENT == VALUES ? SECOND_LEFT : FIRST_LEFT) + (stage ^ 1), PRODUCTS + COPIES);
    if constexpr (GRADIENT != VALUES) {
      barrier_wait(SECOND_CAME + 2 * stage2 + second, PRODUCTS / 2 + COPIES);
      wgmma_fence();
      multiply_rows<OWN, STEP>(ds, weighed, two);
      wgmma_commit();
      wgmma_wait<1>();
    } else {
      wgmma_wait<0>();
    }
    settle<SCORES>(p);
    const float *lse2_i = lse2_steps + STEP * stage + lane % 4 * 2, *delta_i = delta_steps + STEP * stage2 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < SCORES; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) p[j][e] = fast_exp2(p[j][e] * (scale * LOG2E) - (OF_QUERIES ? own_lse2[e / 2] : lse2_i[8 * j + e % 2]));
    }
    if (OF_QUERIES ? i0 + STEP - 1 > own || i0 < all : i0 < own + 15 || first_key(start, i0 + STEP - 1, tokens, window) > own) {
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int row = own + lane / 4 + e / 2 * 8, column = i0 + 8 * j + lane % 4 * 2 + e % 2;
          int query = OF_QUERIES ? row : column, key = OF_QUERIES ? column : row;
          if (key > query || key < first_key(start, query, tokens, window)) p[j][e] = 0.f;
        }
      }
    }
    if constexpr (GRADIENT == VALUES) {
      round_weights<STEP>(w, p);
      if (left > FIRST_STAGES) barrier_arrive(FIRST_LEFT + stage, PRODUCTS + COPIES);
      barrier_wait(SECOND_CAME + 2 * stage2 + second, PRODUCTS / 2 + COPIES);
    } else {
      wgmma_wait<0>();
      settle<SCORES>(ds);
#pragma unroll
      for (int j = 0; j < SCORES; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) ds[j][e] = p[j][e] * (ds[j][e] - (OF_QUERIES ? own_delta[e / 2] : delta_i[8 * j + e % 2]));
      }
      round_weights<STEP>(w, ds);
      if (left > SECOND_STAGES) barrier_arrive(SECOND_LEFT + stage2, PRODUCTS + COPIES);
    }
    settle<STEP / 16>(w), settle<D / 8>(sum);
    wgmma_fence();
    multiply_weights<STEP>(sum, w, GRADIENT == VALUES ? two : one);
    wgmma_commit();
    i0 += STEP;
    if (i0 == (to + 1) * STEP) i0 = from * STEP;
    stage ^= 1;
  } while (--left > 0);
  wgmma_wait<0>();
  settle<D / 8>(sum);

  if (!OF_QUERIES && parts > 1) {
    partials += (((int64_t)(part * gridDim.z + blockIdx.z) * (gridDim.y / parts) + key_head) * gridDim.x + block) * (OWN * D);
#pragma unroll
    for (int j = 0; j < D / 8; j++) store4(partials + (j * PRODUCTS + threadIdx.x) * 4, sum[j]);
    return;
  }
#ifdef ROTARY
  if (GRADIENT != VALUES) turn_back(sum, frequencies, own);
#endif
  barrier_wait(DONE, PRODUCTS); // both are done with the block's rows
  float scales[2] = {GRADIENT == VALUES ? 1.f : scale, GRADIENT == VALUES ? 1.f : scale};
  dx += text * stride_dx + (OF_QUERIES ? head : key_head) * D;
  put_rows<D>(sum, scales, memory, warp * 16, 0, dx, stride_dx, own, tokens);
}

// Sums the parts; each block handles the rows of one block of attention_gradient.
extern "C" __global__ void __launch_bounds__(PRODUCTS)
attention_gradient_join(const float *partials, bf16 *dx, int tokens, int parts, float scale, const double *frequencies,
                        int64_t stride_dx) {
  int64_t apart = (int64_t)gridDim.z * gridDim.y * gridDim.x * (OWN * D);
  partials += (((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * (OWN * D);
  float sum[D / 8][4], scales[2] = {scale, scale};
  clear<D / 8>(sum);
  for (int part = 0; part < parts; part++, partials += apart) {
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
      float x[4];
      load4(partials + (j * PRODUCTS + threadIdx.x) * 4, x);
#pragma unroll
      for (int e = 0; e < 4; e++) sum[j][e] += x[e];
    }
  }
  int row = threadIdx.x / WARP * 16;
#ifdef ROTARY
  if (GRADIENT != VALUES) turn_back(sum, frequencies, blockIdx.x * OWN + row);
#endif
  put_rows<D>(sum, scales, memory, row, 0, dx + (int64_t)blockIdx.z * tokens * stride_dx + blockIdx.y * D, stride_dx,
              blockIdx.x * OWN + row, tokens);
}
