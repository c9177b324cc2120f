// Products on Hopper's tensor cores with the activation, or its gradient, where the accumulators
// are: a pass of their own over what they make would take as long as memory does.
//
// Two blocks, a cluster, take ROWS rows each of the same WIDE columns of a product. A block copies
// its own rows of the left operand, and half of the right one for both. One thread of a block
// copies, DEPTH of K a stage, and two warpgroups multiply, half of the rows each. What is made of a
// tile is made beside the products of the next one. Of a stage's memory the first third is the left
// operand, the rest the right one.
//
// Macros: ROWS, DEPTH, STAGES, GROUP, and for y KEEP, where gate and up are written too, or
// BACKWARD.

constexpr int TILE = ROWS * DEPTH * 2; // bytes
constexpr int STAGE = 3 * TILE;
constexpr int WARPGROUP = 128;
constexpr int WIDE = 2 * ROWS;
constexpr int SUMS = WIDE / 8; // of a thread, four each
static_assert(ROWS == 128 && DEPTH == 64, "an instruction takes 64 rows and 256 columns, a box 64 of a row");

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

// d = a b' or d += a b': 64 rows of a and 256 of b, of 16. With Columns b is 16 rows of 256: d = a b.
template <int Columns> __device__ __forceinline__ void wgmma_64x256(float d[32][4], uint64_t a, uint64_t b, bool add) {
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
      "}, %128, %129, p, 1, 1, 0, %131;\n}"
      : SIXTEEN(d), SIXTEEN(d + 4), SIXTEEN(d + 8), SIXTEEN(d + 12), SIXTEEN(d + 16), SIXTEEN(d + 20), SIXTEEN(d + 24), SIXTEEN(d + 28)
      : "l"(a), "l"(b), "r"((int)add), "n"(Columns));
}

// describe is an operand in shared memory: rows of 128 bytes, swizzled, 8 of them 1024 bytes
// behind the 8 before. Adding 2 to it moves it by 16 of a row. An operand of 64 columns after
// another has them `leading` bytes behind each other, and adding 128 moves it by 16 rows.
__device__ __forceinline__ uint64_t describe(uint32_t address, int leading = 16) {
  return (address & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// Work is the tiles of a product, in the order that clusters take them: GROUP pairs of tiles below
// one another, then those to the right of them, so that what they share is in the cache.
struct Work {
  int pairs, across, total, step;
  __device__ __forceinline__ Work(int rows, int cols, int step) : step(step) {
    pairs = (rows + 2 * ROWS - 1) / (2 * ROWS), across = (cols + step - 1) / step, total = pairs * across;
  }
  __device__ __forceinline__ void at(int i, int block, int &row, int &col) const {
    int first = i / (GROUP * across) * GROUP, size = min(GROUP, pairs - first), rest = i - first * across;
    row = ((first + rest % size) * 2 + block) * ROWS, col = rest / size * step;
  }
};

// Matrix is a tensor in memory, [rows cols], with rows stride apart.
struct Matrix {
  bf16 *at;
  int64_t stride;
};

// Bounds are the rows and columns of what is made.
struct Bounds {
  int rows, cols;
};

// octet gives each lane the 8 channels of one of four octets of a row, of which lanes have 2
// channels each.
__device__ __forceinline__ void octet(uint32_t w[4]) {
  int part = threadIdx.x % 4;
  exchange(w[0], w[1], part & 1, 1), exchange(w[2], w[3], part & 1, 1);
  exchange(w[0], w[2], part & 2, 2), exchange(w[1], w[3], part & 2, 2);
}

__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Place is where a lane's octet of a part is: a part is 8 rows of 32 columns of a warp's 16 rows.
struct Place {
  int row, col;
  __device__ __forceinline__ Place(int row_, int col_, int part) {
    int lane = threadIdx.x % WARP;
    row = row_ + lane / 4 + 8 * (part % 2), col = col_ + (part / 2 * 4 + lane % 4) * 8;
  }
  __device__ __forceinline__ bool within(Bounds b) const { return row < b.rows && col < b.cols; }
  __device__ __forceinline__ void put(Matrix m, Bounds b, const uint32_t w[4]) const {
    if (!within(b)) return;
    bf16 *to = m.at + row * m.stride + col;
    if (col + 8 <= b.cols) {
      *(uint4 *)to = make_uint4(w[0], w[1], w[2], w[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (col + i < b.cols) to[i].bits = (uint16_t)(w[i / 2] >> i % 2 * 16);
    }
  }
};

// multiply_tiles makes a product's tiles. copy begins the copies of a stage; made takes a
// tile's sums, and has Made::PARTS parts to make of them.
template <int Columns, typename Copy, typename Made>
__device__ __forceinline__ void multiply_tiles(Work work, int k, Copy copy, Made made) {
  extern __shared__ char memory[];
  uint32_t stages = (shared_address(memory) + 1023) / 1024 * 1024, full = stages + STAGES * STAGE, empty = full + 8 * STAGES;
  int block, warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, steps = (k + DEPTH - 1) / DEPTH;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
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
          uint32_t barrier = full + 8 * stage;
          mbarrier_await(empty + 8 * stage, phase ^ 1);
          mbarrier_expect(barrier, STAGE);
          copy(stages + stage * STAGE, block, s * DEPTH, row, col, barrier);
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
    made.take(d);
    int before = 0;
    auto multiply = [&](bool add) {
      mbarrier_await(full + 8 * stage, phase);
      uint64_t a = describe(stages + stage * STAGE + (warpgroup - 1) * TILE / 2), b = describe(stages + stage * STAGE + TILE, Columns ? TILE / 2 : 16);
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < DEPTH / 16; c++) wgmma_64x256<Columns>(d, a + 2 * c, b + (Columns ? 128 : 2) * c, add || c > 0);
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
        made.put(s);
        advance(s == 0);
      }
#pragma unroll 1
      for (int s = Made::PARTS; s < steps; s++) {
        multiply(true);
        advance(false);
      }
      work.at(i, block, row, col);
      made.begin(row + (warpgroup - 1) * 64 + thread / WARP * 16, col);
      wgmma_wait<0>();
      release(before);
      made.take(d);
    }
#pragma unroll
    for (int s = 0; s < Made::PARTS; s++) made.put(s);
  }
  cluster_sync(); // a block stays while the other may arrive at its barriers
}

#ifndef BACKWARD
// gated makes two channels of y, as swiglu does.
__device__ __forceinline__ uint32_t gated(uint32_t gate, uint32_t up) {
  return pack_bf16(swiglu_of(low(gate), low(up)), swiglu_of(high(gate), high(up)));
}

// Activation is what a warpgroup's products made, rounded: half of the columns are gate's, the
// other half up's.
struct Activation {
  static constexpr int PARTS = ROWS / 16;
  Matrix y;
#ifdef KEEP
  Matrix kept_gate, kept_up;
#endif
  Bounds bounds;
  int row, col;
  uint32_t gate[PARTS][4], up[PARTS][4];

  __device__ __forceinline__ void begin(int row_, int col_) { row = row_, col = col_; }
  __device__ __forceinline__ void take(const float d[SUMS][4]) {
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
  __device__ __forceinline__ void put(int p) {
    Place place(row, col, p);
    uint32_t w[4];
#ifdef KEEP
    octet(gate[p]), octet(up[p]);
    place.put(kept_gate, bounds, gate[p]), place.put(kept_up, bounds, up[p]);
#endif
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = gated(gate[p][i], up[p][i]);
#ifndef KEEP
    octet(w);
#endif
    place.put(y, bounds, w);
  }
};

// linear_swiglu_tiles: y [rows cols] of x [rows k], gate and up [cols k]. One block copies the rows of
// gate, the other those of up.
extern "C" __global__ void __attribute__((cluster_dims(2, 1, 1))) __launch_bounds__(3 * WARPGROUP, 1)
linear_swiglu_tiles(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap gate, const __grid_constant__ TensorMap up, int rows, int cols,
                    int k, bf16 *y, int64_t stride_y
#ifdef KEEP
                    , bf16 *kept_gate, int64_t stride_gate, bf16 *kept_up, int64_t stride_up
#endif
) {
  auto copy = [&](uint32_t to, int block, int at, int row, int col, uint32_t barrier) {
    copy_box(to, &x, at, row, barrier);
    copy_box_to_both(to + (1 + block) * TILE, block ? &up : &gate, at, col, barrier);
  };
  Activation made;
  made.y = Matrix{y, stride_y}, made.bounds = Bounds{rows, cols};
#ifdef KEEP
  made.kept_gate = Matrix{kept_gate, stride_gate}, made.kept_up = Matrix{kept_up, stride_up};
#endif
  made.begin(rows, cols); // nothing yet
  multiply_tiles<0>(Work(rows, cols, ROWS), k, copy, made);
}
#else
// Slope is the gradient of y that a warpgroup's products made, rounded, as swiglu_backward takes it.
struct Slope {
  static constexpr int PARTS = WIDE / 16;
  Matrix gate, up, dgate, dup;
  Bounds bounds;
  int row, col;
  uint32_t dy[PARTS][4];
  uint4 next_gate, next_up; // of the part that is next

  __device__ __forceinline__ void fetch(int p) {
    Place place(row, col, p);
    if (!place.within(bounds)) return;
    next_gate = *(const uint4 *)(gate.at + place.row * gate.stride + place.col);
    next_up = *(const uint4 *)(up.at + place.row * up.stride + place.col);
  }
  __device__ __forceinline__ void begin(int row_, int col_) {
    row = row_, col = col_;
    fetch(0);
  }
  __device__ __forceinline__ void take(const float d[SUMS][4]) {
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
      int half = p % 2, j = p / 2 * 4;
#pragma unroll
      for (int i = 0; i < 4; i++) dy[p][i] = pack_bf16(d[j + i][2 * half], d[j + i][2 * half + 1]);
    }
  }
  __device__ __forceinline__ void put(int p) {
    octet(dy[p]);
    uint32_t g[4] = {next_gate.x, next_gate.y, next_gate.z, next_gate.w}, u[4] = {next_up.x, next_up.y, next_up.z, next_up.w};
    if (p + 1 < PARTS) fetch(p + 1);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float a[2], b[2];
      swiglu_grad(low(g[i]), low(u[i]), low(dy[p][i]), a[0], b[0]);
      swiglu_grad(high(g[i]), high(u[i]), high(dy[p][i]), a[1], b[1]);
      g[i] = pack_bf16(a[0], a[1]), u[i] = pack_bf16(b[0], b[1]);
    }
    Place place(row, col, p);
    place.put(dgate, bounds, g), place.put(dup, bounds, u);
  }
};

// linear_swiglu_backward_tiles: dgate and dup [rows cols] of dz [rows k], down [k cols], gate and up
// [rows cols]. Each block copies half of the columns of down.
extern "C" __global__ void __attribute__((cluster_dims(2, 1, 1))) __launch_bounds__(3 * WARPGROUP, 1)
linear_swiglu_backward_tiles(const __grid_constant__ TensorMap dz, const __grid_constant__ TensorMap down, int rows, int cols, int k, bf16 *gate,
                             int64_t stride_gate, bf16 *up, int64_t stride_up, bf16 *dgate, int64_t stride_dgate, bf16 *dup, int64_t stride_dup) {
  auto copy = [&](uint32_t to, int block, int at, int row, int col, uint32_t barrier) {
    copy_box(to, &dz, at, row, barrier);
#pragma unroll
    for (int i = 0; i < 2; i++) copy_box_to_both(to + TILE + (2 * block + i) * TILE / 2, &down, col + (2 * block + i) * 64, at, barrier);
  };
  Slope made;
  made.gate = Matrix{gate, stride_gate}, made.up = Matrix{up, stride_up}, made.dgate = Matrix{dgate, stride_dgate}, made.dup = Matrix{dup, stride_dup};
  made.bounds = Bounds{rows, cols};
  made.next_gate = made.next_up = make_uint4(0, 0, 0, 0);
  made.begin(rows, cols); // nothing yet
  multiply_tiles<1>(Work(rows, cols, WIDE), k, copy, made);
}
#endif
