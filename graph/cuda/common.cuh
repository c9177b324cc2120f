// Functions for every op's source. This file is put in front of each source; nothing is included,
// because NVRTC finds no headers on most machines.
//
// Types: `bf16` is for storage only, all arithmetic is in float. Sources are compiled with macros
// for the element types of their operands (Launch.Defines), each `float` or `bf16`.

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;

#define WARP 32
#define FULL 0xffffffffu
#define INF __int_as_float(0x7f800000)

struct __align__(2) bf16 { uint16_t bits; };

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }

// pack_bf16 rounds two floats to nearest even; lo becomes the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

__device__ __forceinline__ bf16 to_bf16(float x) {
  bf16 r;
  r.bits = (uint16_t)pack_bf16(x, 0.f);
  return r;
}

__device__ __forceinline__ void store(float *p, float x) { *p = x; }
__device__ __forceinline__ void store(bf16 *p, float x) { *p = to_bf16(x); }

// load and store move one element, as float.
template <typename T> __device__ __forceinline__ float load(const T *p) { return to_float(*p); }

// load4 and store4 move four elements; p is aligned to all of them.
__device__ __forceinline__ void load4(const float *p, float x[4]) {
  float4 v = *(const float4 *)p;
  x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}
__device__ __forceinline__ void load4(const bf16 *p, float x[4]) {
  uint2 v = *(const uint2 *)p;
  x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
  x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
}
__device__ __forceinline__ void store4(float *p, const float x[4]) {
  *(float4 *)p = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void store4(bf16 *p, const float x[4]) {
  *(uint2 *)p = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}

// load8 and store8 move eight elements: 16 bytes of bf16.
__device__ __forceinline__ void load8(const float *p, float x[8]) { load4(p, x), load4(p + 4, x + 4); }
__device__ __forceinline__ void load8(const bf16 *p, float x[8]) {
  uint4 v = *(const uint4 *)p;
  x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
  x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
  x[4] = __uint_as_float(v.z << 16), x[5] = __uint_as_float(v.z & 0xffff0000u);
  x[6] = __uint_as_float(v.w << 16), x[7] = __uint_as_float(v.w & 0xffff0000u);
}
__device__ __forceinline__ void store8(float *p, const float x[8]) { store4(p, x), store4(p + 4, x + 4); }
__device__ __forceinline__ void store8(bf16 *p, const float x[8]) {
  *(uint4 *)p = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// Template parameters here are spelled such that no op's macro can have the same name.

// load_vector and store_vector move 1, 4 or 8 elements.
template <int Width, typename Type> __device__ __forceinline__ void load_vector(const Type *p, float *x) {
  static_assert(Width == 1 || Width == 4 || Width == 8, "no vector of this width");
  if constexpr (Width == 8) load8(p, x);
  if constexpr (Width == 4) load4(p, x);
  if constexpr (Width == 1) x[0] = to_float(*p);
}
template <int Width, typename Type> __device__ __forceinline__ void store_vector(Type *p, const float *x) {
  static_assert(Width == 1 || Width == 4 || Width == 8, "no vector of this width");
  if constexpr (Width == 8) store8(p, x);
  if constexpr (Width == 4) store4(p, x);
  if constexpr (Width == 1) store(p, x[0]);
}

// aligned reports whether rows that start at p, stride elements apart, can be accessed Width
// elements at a time.
template <int Width, typename Type> __device__ __forceinline__ bool aligned(const Type *p, int64_t stride) {
  constexpr int bytes = Width * sizeof(Type) < 16 ? Width * sizeof(Type) : 16;
  return (uint64_t)p % bytes == 0 && stride % Width == 0;
}

// widest is the number of elements at a time in which rows of cols elements can be accessed: Most,
// 4 or 1.
template <int Most, typename Type> __device__ __forceinline__ int widest(int cols, const Type *p, int64_t stride) {
  if (cols % Most == 0 && aligned<Most>(p, stride)) return Most;
  return cols % 4 == 0 && aligned<4>(p, stride) ? 4 : 1;
}

// load_share and store_share move one thread's Share elements of a row of cols elements that
// several threads share, in groups of Width adjacent elements, so that a warp's accesses coalesce.
// Elements beyond cols are loaded as zeros and not stored.
template <int Width, int Share, typename Type>
__device__ __forceinline__ void load_share(const Type *row, int thread, int threads, int cols, float x[Share]) {
#pragma unroll
  for (int i = 0; i < Share; i += Width) {
    int j = i * threads + thread * Width;
    if (j < cols) {
      load_vector<Width>(row + j, x + i);
    } else {
#pragma unroll
      for (int k = 0; k < Width; k++) x[i + k] = 0.f;
    }
  }
}
template <int Width, int Share, typename Type>
__device__ __forceinline__ void store_share(Type *row, int thread, int threads, int cols, const float x[Share]) {
#pragma unroll
  for (int i = 0; i < Share; i += Width) {
    int j = i * threads + thread * Width;
    if (j < cols) store_vector<Width>(row + j, x + i);
  }
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(FULL, x, d);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, d));
  return x;
}

__device__ __forceinline__ uint64_t warp_max(uint64_t x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x = max(x, (uint64_t)__shfl_xor_sync(FULL, x, d));
  return x;
}

// key_of packs a logit and its index into one integer: a larger logit has a larger key, and of two
// equal logits the lower index has. NaN has the key 0, and the index of key 0 is 0.
__device__ __forceinline__ uint64_t key_of(float score, int number) {
  if (!(score >= -INF)) return 0;
  uint32_t bits = __float_as_uint(score + 0.f); // -0 is 0
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t)bits << 32 | (uint32_t)~number;
}
__device__ __forceinline__ int number_of(uint64_t key) { return key == 0 ? 0 : (int)~(uint32_t)key; }
__device__ __forceinline__ float score_of(uint64_t key) {
  uint32_t bits = (uint32_t)(key >> 32);
  return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

// barrier_arrive and barrier_wait are the two sides of one of the block's named barriers, numbered
// from 1. It opens when `threads` threads have called either.
__device__ __forceinline__ void barrier_arrive(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }
__device__ __forceinline__ void barrier_wait(int barrier, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

// block_sum and block_max reduce over all threads of a block, in an order that depends only on
// blockDim. shared holds 33 floats. Every thread gets the result.
__device__ __forceinline__ float block_sum(float x, float *shared) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = (blockDim.x + WARP - 1) / WARP;
  x = warp_sum(x);
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  if (warp == 0) {
    float y = warp_sum(lane < warps ? shared[lane] : 0.f);
    if (lane == 0) shared[32] = y;
  }
  __syncthreads();
  return shared[32];
}
__device__ __forceinline__ float block_max(float x, float *shared) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = (blockDim.x + WARP - 1) / WARP;
  x = warp_max(x);
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  if (warp == 0) {
    float y = warp_max(lane < warps ? shared[lane] : -INF);
    if (lane == 0) shared[32] = y;
  }
  __syncthreads();
  return shared[32];
}

// The same in double; shared holds 33 doubles.
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(FULL, x, d);
  return x;
}
__device__ __forceinline__ double block_sum(double x, double *shared) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = (blockDim.x + WARP - 1) / WARP;
  x = warp_sum(x);
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  if (warp == 0) {
    double y = warp_sum(lane < warps ? shared[lane] : 0.);
    if (lane == 0) shared[32] = y;
  }
  __syncthreads();
  return shared[32];
}

// warps_sum adds the x of each lane over a block's warps, in order; only warp 0 gets the result.
// shared holds a float for each thread.
__device__ __forceinline__ float warps_sum(float x, float *shared) {
  __syncthreads();
  shared[threadIdx.x] = x;
  __syncthreads();
  if (threadIdx.x < WARP)
    for (int i = threadIdx.x + WARP; i < blockDim.x; i += WARP) x += shared[i];
  return x;
}

// sum_parts adds the partial sums [parts][cols]: a block of 1024 threads handles 32 columns. Each
// of its warps adds every 32nd part, and then the warps' sums are added in order.
__device__ __forceinline__ void sum_parts(const float *partials, float *to, int parts, int cols) {
  __shared__ float shared[1024];
  int j = blockIdx.x * WARP + threadIdx.x % WARP;
  float sum = 0.f;
  if (j < cols)
    for (int i = threadIdx.x / WARP; i < parts; i += 32) sum += partials[(int64_t)i * cols + j];
  sum = warps_sum(sum, shared);
  if (threadIdx.x < WARP && j < cols) to[j] = sum;
}

// A kernel whose launch is Early may start while its predecessor is still running (programmatic
// dependent launch). It calls let_next_begin, for its successor, when it starts, and
// wait_for_inputs before it accesses memory that its predecessors read or write.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void begin_early() { let_next_begin(), wait_for_inputs(); }

#define LOG2E 1.4426950408889634f

// fast_exp2 is 2^x by the special-function unit: 2 ulp, 0 for very negative x.
__device__ __forceinline__ float fast_exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * LOG2E); }
// fast_log2 has an absolute error of 2^-22, fast_reciprocal an error of 1 ulp.
__device__ __forceinline__ float fast_log2(float x) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float fast_reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + __expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
// silu_grad is d silu(x) / dx.
__device__ __forceinline__ float silu_grad(float x) {
  float s = sigmoid(x);
  return s * (1.f + x * (1.f - s));
}
// swiglu_of is y = silu(gate) up; swiglu_grad computes dgate and dup, which may be gate and up
// themselves. They are for products' epilogues, where a division would be a function call.
__device__ __forceinline__ float fast_sigmoid(float x) { return fast_reciprocal(1.f + fast_exp(-x)); }
__device__ __forceinline__ float swiglu_of(float gate, float up) { return gate * fast_sigmoid(gate) * up; }
__device__ __forceinline__ void swiglu_grad(float gate, float up, float dy, float &dgate, float &dup) {
  float s = fast_sigmoid(gate), silu = gate * s;
  dgate = dy * up * (s + silu * (1.f - s)), dup = dy * silu;
}
__device__ __forceinline__ float softplus(float x) { return x > 20.f ? x : log1pf(__expf(x)); }

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// copy_async copies the first of Size bytes, 8 or 16, from global to shared memory (cp.async), and
// fills the others with zeros.
template <int Size> __device__ __forceinline__ void copy_async(void *to, const void *from, int bytes) {
  if constexpr (Size == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(Size), "r"(bytes));
}
// copy_async16 copies 16 bytes; if ok is false it writes zeros and reads nothing.
__device__ __forceinline__ void copy_async16(void *to, const void *from, bool ok = true) { copy_async<16>(to, from, ok ? 16 : 0); }
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;"); }
template <int PENDING> __device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING));
}

// mma_16x8x16: D += A B, bf16 with float accumulators, one warp (PTX mma.m16n8k16).
__device__ __forceinline__ void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ldmatrix4 loads four 8x8 tiles of 16-bit elements; each lane provides the address of a row.
__device__ __forceinline__ void ldmatrix4(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void ldmatrix4_trans(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}

// exchange swaps `odd` of the lower lane with `even` of the upper one, `lane` lanes away.
__device__ __forceinline__ void exchange(uint32_t &even, uint32_t &odd, bool upper, int lane) {
  uint32_t got = __shfl_xor_sync(FULL, upper ? even : odd, lane);
  (upper ? even : odd) = got;
}

// For compute capability 9.0 and later: barriers at addresses in shared memory, and TMA copies that
// signal them (PTX, sections "mbarrier" and "Asynchronous copy").

struct __align__(64) TensorMap {
  uint64_t words[16];
};

__device__ __forceinline__ void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// mbarrier_expect arrives at a barrier and announces the number of bytes that copies will write.
__device__ __forceinline__ void mbarrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// mbarrier_await waits for the end of the phase with this parity.
__device__ __forceinline__ void mbarrier_await(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra over;\nbra again;\nover:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// copy_box starts the copy of the box at column c and row r of a matrix; it signals the barrier.
__device__ __forceinline__ void copy_box(uint32_t to, const TensorMap *from, int c, int r, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(from),
               "r"(c), "r"(r), "r"(barrier)
               : "memory");
}

// cluster_arrive and cluster_await synchronize all threads of a cluster's blocks, but they do not
// make earlier stores visible.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_await() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// store_async stores to shared memory of one of the cluster's blocks, whose barrier counts the
// bytes.
__device__ __forceinline__ void store_async(float *p, uint64_t *barrier, int block, float v) {
  asm volatile(
      "{\n.reg .b32 to, at;\nmapa.shared::cluster.u32 to, %0, %2;\nmapa.shared::cluster.u32 at, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [to], %3, [at];\n}" ::"r"(shared_address(p)),
      "r"(shared_address(barrier)), "r"(block), "f"(v)
      : "memory");
}
__device__ __forceinline__ void store_async(float *p, uint64_t *barrier, int block, float v0, float v1) {
  asm volatile(
      "{\n.reg .b32 to, at;\nmapa.shared::cluster.u32 to, %0, %2;\nmapa.shared::cluster.u32 at, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [to], {%3, %4}, [at];\n}" ::"r"(shared_address(p)),
      "r"(shared_address(barrier)), "r"(block), "f"(v0), "f"(v1)
      : "memory");
}
// mbarrier_await_stores waits for the end of the phase with this parity, and makes the stores of
// the cluster's blocks visible.
__device__ __forceinline__ void mbarrier_await_stores(uint64_t *barrier, int parity = 0) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@p bra over;\nbra again;\nover:\n}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// mbarrier_arrive_at arrives at the barrier of one of the cluster's blocks.
__device__ __forceinline__ void mbarrier_arrive_at(uint64_t *barrier, int block) {
  asm volatile(
      "{\n.reg .b32 at;\nmapa.shared::cluster.u32 at, %0, %1;\nmbarrier.arrive.release.cluster.shared::cluster.b64 _, [at];\n}" ::"r"(
          shared_address(barrier)),
      "r"(block)
      : "memory");
}
