// y = x rstd w and its gradient. WARPS warps hold a row of D elements in registers, so that x is
// read once; a block handles ROWS rows at a time.

constexpr int THREADS = WARPS * WARP; // of a row
constexpr int SHARE = (D + THREADS * 8 - 1) / (THREADS * 8) * 8;

// divisor is a weight, or the value that both passes use for one that is nearly 0.
__device__ __forceinline__ float divisor(float w) { return fabsf(w) < 1e-20f ? copysignf(1e-20f, w) : w; }

// row_barrier waits only for the threads of a row: the rows of a block do not wait for each other.
__device__ __forceinline__ void row_barrier() {
  if (ROWS == 1)
    __syncthreads();
  else
    barrier_wait(1 + threadIdx.x / THREADS, THREADS);
}

// row_sum adds x over the threads of a row, in a fixed order. Its shared memory must not be reused
// before another barrier.
__device__ __forceinline__ float row_sum(float x, float *shared) {
  x = warp_sum(x);
  if (WARPS == 1) return x;
  int warp = threadIdx.x / WARP;
  if (threadIdx.x % WARP == 0) shared[warp] = x;
  row_barrier();
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) sum += shared[warp / WARPS * WARPS + i];
  return sum;
}

#ifdef Y_T
constexpr int WIDE = sizeof(X_T) + sizeof(Y_T) == 4 ? 8 : 4; // 16 bytes of the widest operand

template <int Width> __device__ __forceinline__ void forward_row(const X_T *x, const float *w, Y_T *y, float *rstd, int cols, float eps) {
  __shared__ float shared[ROWS * WARPS];
  int thread = threadIdx.x % THREADS;
  float v[SHARE], weight[SHARE], sum = 0.f;
  load_share<Width, SHARE>(x, thread, THREADS, cols, v);
  load_share<Width, SHARE>(w, thread, THREADS, cols, weight);
#pragma unroll
  for (int i = 0; i < SHARE; i++) sum += v[i] * v[i];
  float r = rsqrtf(row_sum(sum, shared) * (1.f / D) + eps);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] *= r * divisor(weight[i]);
  store_share<Width, SHARE>(y, thread, THREADS, cols, v);
  if (thread == 0 && cols > 0) *rstd = r;
}

extern "C" __global__ void __launch_bounds__(THREADS *ROWS)
rms_norm(const X_T *x, const float *w, Y_T *y, float *rstd, int64_t stride_x, int64_t stride_y, int rows, float eps) {
  int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / THREADS;
  int cols = row < rows ? D : 0; // a missing row only waits at barriers
  const X_T *from = x + row * stride_x;
  Y_T *to = y + row * stride_y;
  // The same for all rows of a block, since the functions contain barriers.
  if (D % WIDE == 0 && aligned<WIDE>(x, stride_x) && aligned<WIDE>(w, 0) && aligned<WIDE>(y, stride_y))
    forward_row<WIDE>(from, w, to, rstd + row, cols, eps);
  else
    forward_row<1>(from, w, to, rstd + row, cols, eps);
}
#endif

#ifdef DY_T
// float24 is a float without its last 8 bits, in two planes of a tensor: the bfloat16 of all
// elements, and then the rests, one byte per element that is added to its bits.
struct float24 {
  uint16_t high;
};
__device__ constexpr bool is_float24(const float24 *) { return true; }
template <typename Type> __device__ constexpr bool is_float24(const Type *) { return false; }
template <typename Type> __device__ __forceinline__ const signed char *rests_of(const Type *p, int64_t rows, int64_t stride) { return (const signed char *)(p + rows * stride); }

// pack_s8 packs four numbers into bytes, a first, with saturation.
__device__ __forceinline__ uint32_t pack_s8(int a, int b, int c, int d) {
  uint32_t r;
  asm("{.reg .b32 t; cvt.pack.sat.s8.s32.b32 t, %4, %3, 0; cvt.pack.sat.s8.s32.b32 %0, %2, %1, t;}" : "=r"(r) : "r"(a), "r"(b), "r"(c), "r"(d));
  return r;
}

// With Z_T, z is added to dx. DX_T is float or float24.
#ifdef Z_T
#define Z_PARAMETERS , const Z_T *z, int64_t stride_z
#else
#define Z_PARAMETERS
#endif

// With ROUNDED_T, dx is also written to rounded.
#ifdef ROUNDED_T
#define ROUNDED_PARAMETERS , ROUNDED_T *rounded, int64_t stride_rounded
#else
#define ROUNDED_PARAMETERS
#endif

// With FROM_Y, x is actually y, from which x rstd is recovered.
#ifdef FROM_Y
// late_reciprocal has an error of 1 ulp. It is recomputed for each row (asm volatile), because
// keeping it would take a register per column.
__device__ __forceinline__ float late_reciprocal(float x) {
  float r;
  asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
#endif

// Share is a thread's elements of a row in their memory format: bfloat16 needs half the registers
// of floats, and converting to float would require waiting for the loads.
template <typename Type> struct Share {
  static constexpr int BYTES = WIDTH * sizeof(Type), WORDS = (BYTES + 3) / 4;
  uint32_t words[SHARE / WIDTH][WORDS] = {}; // 0 beyond D

  __device__ __forceinline__ void load(const Type *row, int thread) {
#pragma unroll
    for (int i = 0; i < SHARE / WIDTH; i++) {
      int j = (i * THREADS + thread) * WIDTH;
      if (SHARE * THREADS > D && j >= D) continue;
      if constexpr (BYTES >= 16) {
#pragma unroll
        for (int k = 0; k < WORDS; k += 4) {
          uint4 v = *(const uint4 *)((const uint32_t *)(row + j) + k);
          words[i][k] = v.x, words[i][k + 1] = v.y, words[i][k + 2] = v.z, words[i][k + 3] = v.w;
        }
      } else if constexpr (BYTES == 8) {
        uint2 v = *(const uint2 *)(row + j);
        words[i][0] = v.x, words[i][1] = v.y;
      } else if constexpr (BYTES == 4) {
        words[i][0] = *(const uint32_t *)(row + j);
      } else {
        words[i][0] = *(const uint16_t *)(row + j);
      }
    }
  }

  __device__ __forceinline__ float operator[](int i) const {
    int piece = i / WIDTH, k = i % WIDTH;
    if (sizeof(Type) == 4) return __uint_as_float(words[piece][k]);
    uint32_t pair = words[piece][k / 2];
    return __uint_as_float(k % 2 ? pair & 0xffff0000u : pair << 16);
  }
};

// Share of float24 is of the first plane, and Rests of the second.
struct Rests {
  static constexpr int WORDS = (WIDTH + 3) / 4;
  uint32_t words[SHARE / WIDTH][WORDS] = {};

  __device__ __forceinline__ void load(const signed char *row, int thread) {
#pragma unroll
    for (int i = 0; i < SHARE / WIDTH; i++) {
      int j = (i * THREADS + thread) * WIDTH;
      if (SHARE * THREADS > D && j >= D) continue;
      if constexpr (WIDTH == 8) {
        uint2 v = *(const uint2 *)(row + j);
        words[i][0] = v.x, words[i][1] = v.y;
      } else if constexpr (WIDTH == 4) {
        words[i][0] = *(const uint32_t *)(row + j);
      } else {
        words[i][0] = (unsigned char)row[j];
      }
    }
  }
  // add adds byte i, sign-extended and shifted left by 8, to the bits of a bfloat16 that was widened
  // to a float.
  __device__ __forceinline__ float add(float high, int i) const {
    int k = i % WIDTH % 4, rest; // its bytes, from the lowest: 0, byte k, and its sign twice
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(rest) : "r"(words[i / WIDTH][i % WIDTH / 4]), "r"(0x8804 | k << 4 | k << 8 | k << 12));
    return __int_as_float(__float_as_int(high) + rest);
  }
};

// store_rests stores what rounding a thread's share of a row to bfloat16 leaves.
__device__ __forceinline__ void store_rests(signed char *row, int thread, const float x[SHARE]) {
#pragma unroll
  for (int i = 0; i < SHARE; i += WIDTH) {
    int j = i * THREADS + thread * WIDTH;
    if (SHARE * THREADS > D && j >= D) continue;
    int rest[WIDTH < 4 ? 4 : WIDTH] = {};
#pragma unroll
    for (int k = 0; k < WIDTH; k++) rest[k] = (__float_as_int(x[i + k]) - (int)(pack_bf16(0.f, x[i + k])) + 128) >> 8;
    uint32_t words[(WIDTH + 3) / 4];
#pragma unroll
    for (int k = 0; k < WIDTH; k += 4) words[k / 4] = pack_s8(rest[k], rest[k + 1], rest[k + 2], rest[k + 3]);
    if constexpr (WIDTH == 8) *(uint2 *)(row + j) = make_uint2(words[0], words[1]);
    else if constexpr (WIDTH == 4) *(uint32_t *)(row + j) = words[0];
    else row[j] = (signed char)words[0];
  }
}

// A block handles every gridDim-th group of ROWS rows, and stores its partial dw in
// partials[blockIdx]. While a row is processed, the next one is being loaded. dx may be dy or z
// itself: a row is read before it is written.
extern "C" __global__ void __launch_bounds__(THREADS *ROWS, BLOCKS)
rms_norm_backward(const X_T *x, const float *w, const float *rstd, const DY_T *dy, DX_T *dx, float *partials, int64_t stride_x,
                  int64_t stride_dy, int64_t stride_dx, int rows Z_PARAMETERS ROUNDED_PARAMETERS) {
  // Double-buffered sums: the next row's are written while some threads still read.
  __shared__ float shared[2][ROWS * WARPS];
  __shared__ __align__(16) float other[ROWS > 1 ? D : 4];
  int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
  float weight[SHARE], dw[SHARE] = {};
  load_share<WIDTH, SHARE>(w, thread, THREADS, D, weight);
#ifdef FROM_Y
#pragma unroll
  for (int i = 0; i < SHARE; i++) weight[i] = divisor(weight[i]);
#endif

  Share<X_T> next_x;
  Share<DY_T> next_dy;
  float next_r = 0.f;
  auto load_row = [&](int64_t row) {
    if (row >= rows) return;
    next_x.load(x + row * stride_x, thread);
    next_dy.load(dy + row * stride_dy, thread);
    next_r = rstd[row];
  };
#ifdef Z_T
  Share<Z_T> next_z;
  Rests next_rests; // of a float24
  auto load_z = [&](int64_t row) {
    if (row >= rows) return;
    next_z.load(z + row * stride_z, thread);
    if constexpr (is_float24((const Z_T *)0)) next_rests.load(rests_of(z, rows, stride_z) + row * stride_z, thread);
  };
#endif
  int64_t row = (int64_t)blockIdx.x * ROWS + group, step = (int64_t)gridDim.x * ROWS;
  load_row(row);
#ifdef Z_T
  load_z(row);
#endif
  for (int phase = 0; row < rows; row += step, phase ^= 1) {
    float r = next_r, dot = 0.f, g[SHARE];
    Share<X_T> of_x = next_x;
    Share<DY_T> of_dy = next_dy;
    load_row(row + step);
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      float p = of_dy[i] * of_x[i];
#ifdef FROM_Y
      dot += p; // weight * dy * (y / weight)
      dw[i] += p;
#else
      dot += weight[i] * p;
      dw[i] += r * p;
#endif
    }
#ifdef FROM_Y
    float a = row_sum(dot, shared[phase]) * (1.f / D);
#else
    float a = row_sum(dot, shared[phase]) * (r * r * (1.f / D));
#endif
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
#ifdef FROM_Y
      float n = of_x[i] * late_reciprocal(weight[i]);
#else
      float n = of_x[i];
#endif
      g[i] = r * (weight[i] * of_dy[i] - n * a);
#ifdef Z_T
      if constexpr (is_float24((Z_T *)0)) g[i] += next_rests.add(next_z[i], i);
      else g[i] += next_z[i];
#endif
    }
#ifdef Z_T
    load_z(row + step); // only here, so that no second set of registers is needed
#endif
    if constexpr (is_float24((DX_T *)0)) {
      store_share<WIDTH, SHARE>((bf16 *)dx + row * stride_dx, thread, THREADS, D, g);
      store_rests((signed char *)rests_of(dx, rows, stride_dx) + row * stride_dx, thread, g);
    } else {
      store_share<WIDTH, SHARE>(dx + row * stride_dx, thread, THREADS, D, g);
    }
#ifdef ROUNDED_T
    store_share<WIDTH, SHARE>(rounded + row * stride_rounded, thread, THREADS, D, g);
#endif
  }

#ifdef FROM_Y // all rows' dw have the same divisor
#pragma unroll
  for (int i = 0; i < SHARE; i++) dw[i] /= weight[i];
#endif
  for (int k = 1; k < ROWS; k++) { // group 0 adds the other groups' dw, in order
    __syncthreads();
    if (group == k) store_share<WIDTH, SHARE>(other, thread, THREADS, D, dw);
    __syncthreads();
    if (group == 0) {
      float v[SHARE];
      load_share<WIDTH, SHARE>(other, thread, THREADS, D, v);
#pragma unroll
      for (int i = 0; i < SHARE; i++) dw[i] += v[i];
    }
  }
  if (group == 0) store_share<WIDTH, SHARE>(partials + (int64_t)blockIdx.x * D, thread, THREADS, D, dw);
}

// rms_norm_dw adds the blocks' partial sums of 32 columns: each warp adds every 32nd, and then the
// warps' sums are added in order.
extern "C" __global__ void __launch_bounds__(1024) rms_norm_dw(const float *partials, float *dw, int parts) {
  __shared__ float sums[32][WARP];
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = blockIdx.x * WARP + lane;
  float sum = 0.f;
  if (j < D)
    for (int i = warp; i < parts; i += 32) sum += partials[(int64_t)i * D + j];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < D) {
    for (int i = 1; i < 32; i++) sum += sums[i][lane];
    dw[j] = sum;
  }
}
#endif
