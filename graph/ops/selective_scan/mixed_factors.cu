// Tensor-core operands of the mixed-precision backward pass: pairs of bfloat16 in a register.

#define TERMS 9 // per row of Bm or Cm as the right operand of an outer product: 8 terms of two states, and a zero
#define ONES 0x3f803f80u

__device__ __forceinline__ uint32_t fma2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
// mul2 adds -0, because a plain multiplication exists only from compute capability 9.0 on.
__device__ __forceinline__ uint32_t mul2(uint32_t a, uint32_t b) { return fma2(a, b, 0x80008000u); }
// both duplicates one half of a pair. Written this way it costs no instruction.
template <int Half> __device__ __forceinline__ uint32_t both(uint32_t pair) {
  uint32_t r;
  if (Half) asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, h};}" : "=r"(r) : "r"(pair));
  else asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {l, l};}" : "=r"(r) : "r"(pair));
  return r;
}
__device__ __forceinline__ float half_of(uint32_t pair, int k) { return __uint_as_float(k % 2 ? pair & 0xffff0000u : pair << 16); }

// round8 rounds a thread's states to pairs: the left operand of one 16x16, or of two 16x8.
__device__ __forceinline__ void round8(uint32_t to[4], const float x[8]) {
#pragma unroll
  for (int k = 0; k < 4; k++) to[k] = pack_bf16(x[2 * k], x[2 * k + 1]);
}

// mma_16x8x8: D += A B, bf16 with float accumulators, one warp (PTX mma.m16n8k8).
__device__ __forceinline__ void mma_16x8x8(float d[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(b));
}
// add_outer adds to the thread's states the outer product of one half of each pair in factors and a
// row of Bm or Cm. Only one element of the inner dimension is nonzero.
__device__ __forceinline__ void add_outer(float x[8], uint2 factors, uint2 row) {
  mma_16x8x8(x, factors.x, factors.y, row.x);
  mma_16x8x8(x + 4, factors.x, factors.y, row.y);
}
// add_sums adds the products of the states with a row of Bm or Cm, summed over states.
__device__ __forceinline__ void add_sums(float sums[4], const uint32_t x[4], uint2 row) {
  uint32_t right[2] = {row.x, row.y};
  mma_16x8x16(sums, x, right);
}

// Rows are a chunk's rows of Bm and Cm in shared memory, as two kinds of right operands.
struct Rows {
  uint2 b[CHUNK][TERMS], c[CHUNK][TERMS]; // for outer products: states n and n+8; b in the lower halves, c in the upper ones
  uint2 sums[CHUNK][2][LANES];            // for sums, of Cm and then Bm: states 2n, 2n+1 and 2n+8, 2n+9

  __device__ __forceinline__ void zeros() {
    if (threadIdx.x < CHUNK) b[threadIdx.x][8] = c[threadIdx.x][8] = make_uint2(0, 0);
  }
  // load copies `count` rows and fills the remaining ones with zeros.
  __device__ __forceinline__ void load(const B_T *bm, const C_T *cm, int row, int b_stride, int c_stride, int count) {
    static_assert(CHUNK * STATES / 4 == THREADS, "a thread has four neighbours of a row");
    int t = threadIdx.x / 4, n = threadIdx.x % 4 * 4;
    uint2 x = make_uint2(0, 0), y = x;
    if (t < count) x = *(const uint2 *)octet_at(bm, row + t, b_stride, n), y = *(const uint2 *)octet_at(cm, row + t, c_stride, n);
    uint32_t *to_b = &b[t][n % 8].x + n / 8, *to_c = &c[t][n % 8].x + n / 8, *to = &sums[t][0][n % 8 / 2].x + n / 8;
    to_b[0] = x.x & 0xffffu, to_b[2] = x.x >> 16, to_b[4] = x.y & 0xffffu, to_b[6] = x.y >> 16;
    to_c[0] = y.x << 16, to_c[2] = y.x & 0xffff0000u, to_c[4] = y.y << 16, to_c[6] = y.y & 0xffff0000u;
    to[0] = y.x, to[2] = y.y, to[2 * LANES] = x.x, to[2 * LANES + 2] = x.y;
  }
};

// turn transposes: lane l gets what the lanes of rows 2(l%4) and 2(l%4)+1 hold in column l/4 of 8;
// to[p] comes from the lanes of part p. room is 512 bytes per warp.
__device__ __forceinline__ void turn(uint32_t to[4], const uint32_t from[4], uint4 *room, int lane) {
  // Lanes that write together, and lanes that read together, use all banks.
  room[lane ^ lane / 8] = make_uint4(from[0], from[1], from[2], from[3]);
  __syncwarp();
  ldmatrix4_trans(to, room + lane % 8 * 4 + (lane / 8 ^ lane / 2 % 4));
}
