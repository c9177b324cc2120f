// Both products in one pass, on Hopper's tensor cores: a tile of y is made where the
// accumulators of gate and up meet.
//
// Two blocks, a cluster, take ROWS rows of y each, of the same COLUMNS columns. A block copies
// its own rows of x; one copies the rows of gate and the other those of up, for both. One
// thread of a block copies, DEPTH of K a stage, and two warpgroups multiply, half of the rows
// each. Of a stage's memory the first third is x, the second gate and the third up: gate and
// up are one right operand.
//
// Macros: ROWS, COLUMNS, DEPTH, STAGES, GROUP.

constexpr int TILE = ROWS * DEPTH * 2; // bytes
constexpr int STAGE = 3 * TILE;
constexpr int WARPGROUP = 128;
constexpr int SUMS = 2 * COLUMNS / 8; // of a thread, four each
static_assert(ROWS == COLUMNS, "tiles of x and of a weight are equal");

// mbarrier_arrive arrives at the barrier of one of the cluster's blocks. It orders nothing beyond
// the thread's own block, for which a fence of the whole GPU would be waited for.
__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier, int block) {
  asm volatile(
      "{\n.reg .b32 at;\nmapa.shared::cluster.u32 at, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [at];\n}" ::"r"(barrier),
      "r"(block)
      : "memory");
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// copy_box_to_both is copy_box to both blocks.
__device__ __forceinline__ void copy_box_to_both(uint32_t to, const TensorMap *from, int c, int r, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(from), "r"(c), "r"(r), "r"(barrier), "h"((uint16_t)3)
      : "memory");
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory"); }
template <int Count> __device__ __forceinline__ void registers_release() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count)); }
template <int Count> __device__ __forceinline__ void registers_demand() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count)); }

#define FOUR(x) "+f"((x)[0]), "+f"((x)[1]), "+f"((x)[2]), "+f"((x)[3])
#define SIXTEEN(x) FOUR((x)[0]), FOUR((x)[1]), FOUR((x)[2]), FOUR((x)[3])

// d = a b' or d += a b': 64 rows of a and 256 of b, of 16.
__device__ __forceinline__ void wgmma_64x256(float d[32][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : SIXTEEN(d), SIXTEEN(d + 4), SIXTEEN(d + 8), SIXTEEN(d + 12), SIXTEEN(d + 16), SIXTEEN(d + 20), SIXTEEN(d + 24), SIXTEEN(d + 28)
      : "l"(a), "l"(b), "r"((int)add));
}

// describe is an operand in shared memory: rows of 128 bytes, swizzled, 8 of them 1024 bytes
// behind the 8 before. Adding 2 to it moves it by 16 of K.
__device__ __forceinline__ uint64_t describe(uint32_t address) {
  return (address & 0x3ffff) >> 4 | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// Work is the tiles of y, in the order that clusters take them: GROUP pairs of tiles below
// one another, then those to the right of them, so that what they share is in the cache.
struct Work {
  int pairs, across, total;
  __device__ __forceinline__ Work(int rows, int cols) {
    pairs = (rows + 2 * ROWS - 1) / (2 * ROWS), across = (cols + COLUMNS - 1) / COLUMNS, total = pairs * across;
  }
  __device__ __forceinline__ void at(int i, int block, int &row, int &col) const {
    int first = i / (GROUP * across) * GROUP, size = min(GROUP, pairs - first), rest = i - first * across;
    row = ((first + rest % size) * 2 + block) * ROWS, col = rest / size * COLUMNS;
  }
};

// gated makes two channels of y, with one reciprocal for both. Exponents stop where y is far
// below what it is rounded to.
__device__ __forceinline__ uint32_t gated(uint32_t gate, uint32_t up) {
  float g[2] = {__uint_as_float(gate << 16), __uint_as_float(gate & 0xffff0000u)}, u[2] = {__uint_as_float(up << 16), __uint_as_float(up & 0xffff0000u)};
  float lo = 1.f + fast_exp2(fminf(-LOG2E * g[0], 60.f)), hi = 1.f + fast_exp2(fminf(-LOG2E * g[1], 60.f));
  float inverse = fast_reciprocal(lo * hi);
  return pack_bf16(g[0] * u[0] * (inverse * hi), g[1] * u[1] * (inverse * lo));
}

// Made is what a warpgroup's products made, rounded, until the next tile's products leave time for
// the rest. Of a warp's 16 rows and COLUMNS columns a part is 8 rows of 32 columns.
struct Made {
  static constexpr int PARTS = COLUMNS / 16;
  uint32_t gate[PARTS][4], up[PARTS][4];
  int row, col;

  __device__ __forceinline__ void take(const float d[SUMS][4], int row_, int col_) {
    row = row_, col = col_;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
      int half = p % 2, j = p / 2 * 4;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        gate[p][i] = pack_bf16(d[j + i][2 * half], d[j + i][2 * half + 1]);
        up[p][i] = pack_bf16(d[SUMS / 2 + j + i][2 * half], d[SUMS / 2 + j + i][2 * half + 1]);
      }
    }
  }

  // put stores part p of y. Lanes that have 2 channels each of four octets of a row get an
  // octet each.
  __device__ __forceinline__ void put(int p, bf16 *y, int64_t stride, int rows, int cols) const {
    int lane = threadIdx.x % WARP, part = lane % 4, r = row + lane / 4 + 8 * (p % 2), c = col + (p / 2 * 4 + part) * 8;
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = gated(gate[p][i], up[p][i]);
    exchange(w[0], w[1], part & 1, 1), exchange(w[2], w[3], part & 1, 1);
    exchange(w[0], w[2], part & 2, 2), exchange(w[1], w[3], part & 2, 2);
    bf16 *to = y + r * stride + c;
    if (r >= rows) return;
    if (c + 8 <= cols) {
      *(uint4 *)to = make_uint4(w[0], w[1], w[2], w[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (c + i < cols) to[i].bits = (uint16_t)(w[i / 2] >> i % 2 * 16);
    }
  }
};

// linear_swiglu_tiles: y [rows cols] of x [rows k], gate and up [cols k].
extern "C" __global__ void __attribute__((cluster_dims(2, 1, 1))) __launch_bounds__(3 * WARPGROUP, 1)
linear_swiglu_tiles(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap gate, const __grid_constant__ TensorMap up, bf16 *y,
                    int rows, int cols, int k, int64_t stride_y) {
  extern __shared__ char memory[];
  uint32_t stages = (shared_address(memory) + 1023) / 1024 * 1024, full = stages + STAGES * STAGE, empty = full + 8 * STAGES;
  int block, warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, steps = (k + DEPTH - 1) / DEPTH;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
  Work work(rows, cols);
  if (threadIdx.x == 0) {
    // A stage is empty when both warpgroups of both blocks are done with it.
    for (int s = 0; s < STAGES; s++) mbarrier_init(full + 8 * s, 1), mbarrier_init(empty + 8 * s, 4);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
  int stage = 0, phase = 0, row, col;
  auto next = [&] {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  };
  if (warpgroup == 0) {
    registers_release<24>();
    if (thread == 0) {
      for (int i = blockIdx.x / 2; i < work.total; i += gridDim.x / 2) {
        work.at(i, block, row, col);
        for (int s = 0; s < steps; s++, next()) {
          uint32_t to = stages + stage * STAGE, barrier = full + 8 * stage;
          mbarrier_await(empty + 8 * stage, phase ^ 1);
          mbarrier_expect(barrier, STAGE);
          copy_box(to, &x, s * DEPTH, row, barrier);
          copy_box_to_both(to + (1 + block) * TILE, block ? &up : &gate, s * DEPTH, col, barrier);
        }
      }
    }
  } else {
    registers_demand<240>();
    auto release = [&](int s) {
      if (thread % WARP == 0 && thread / WARP < 2) mbarrier_arrive(empty + 8 * s, thread / WARP);
    };
    float d[SUMS][4];
#pragma unroll
    for (int j = 0; j < SUMS; j++) d[j][0] = d[j][1] = d[j][2] = d[j][3] = 0.f;
    Made made;
    made.take(d, rows, cols); // nothing yet
    int before = 0;
    auto multiply = [&](bool add) {
      mbarrier_await(full + 8 * stage, phase);
      uint64_t a = describe(stages + stage * STAGE + (warpgroup - 1) * TILE / 2), b = describe(stages + stage * STAGE + TILE);
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < DEPTH / 16; c++) wgmma_64x256(d, a + 2 * c, b + 2 * c, add || c > 0);
      wgmma_commit();
    };
    // The products before are done, while the last ones go on.
    auto advance = [&](bool first) {
      wgmma_wait<1>();
      if (!first) release(before);
      before = stage;
      next();
    };
    for (int i = blockIdx.x / 2; i < work.total; i += gridDim.x / 2) {
#pragma unroll
      for (int s = 0; s < Made::PARTS; s++) {
        multiply(s > 0);
        made.put(s, y, stride_y, rows, cols);
        advance(s == 0);
      }
#pragma unroll 1
      for (int s = Made::PARTS; s < steps; s++) {
        multiply(true);
        advance(false);
      }
      wgmma_wait<0>();
      release(before);
      work.at(i, block, row, col);
      made.take(d, row + (warpgroup - 1) * 64 + thread / WARP * 16, col);
    }
#pragma unroll
    for (int s = 0; s < Made::PARTS; s++) made.put(s, y, stride_y, rows, cols);
  }
  cluster_sync(); // a block stays while the other may arrive at its barriers
}
