// Products on Hopper's tensor cores, with the activation or its gradient as an epilogue in
// registers: a separate pass over their results would take as long as its memory traffic.
//
// A cluster of two thread blocks computes the same WIDE columns of a product, ROWS rows each. Each
// block copies its own rows of the left operand, and half of the right one for both blocks. One
// thread of a block starts the copies, DEPTH of K per stage, and two warpgroups multiply, half of
// the rows each. The epilogue of a tile computes outputs from its sums while the next tile is
// multiplied. The first third of a stage's memory is the left operand, the rest the right one.
//
// Macros: ROWS, DEPTH, STAGES, GROUP, and in the forward pass KEEP, if gate and up are written,
// too, or BACKWARD.

constexpr int TILE = ROWS * DEPTH * 2; // bytes
constexpr int STAGE = 3 * TILE;
constexpr int WARPGROUP = 128;
constexpr int WIDE = 2 * ROWS;
constexpr int SUMS = WIDE / 8; // per thread, four each
static_assert(ROWS == 128 && DEPTH == 64, "an instruction takes 64 rows and 256 columns, a box 64 of a row");

// mbarrier_arrive arrives at the barrier of one of the cluster's blocks. It orders no memory
// accesses of other threads: release semantics would compile to a fence of the whole GPU, and wait
// for it.
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

// d = a b' or d += a b': 64 rows of a and 256 of b, 16 of K. With Columns b is 16 rows of 256: d =
// a b.
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

// describe is the descriptor of an operand in shared memory: rows of 128 bytes, swizzled, each
// group of 8 rows 1024 bytes after the previous one. Adding 2 to it advances by 16 elements of a
// row. If an operand consists of several blocks of 64 columns, these are `leading` bytes apart, and
// adding 128 advances by 16 rows.
__device__ __forceinline__ uint64_t describe(uint32_t address, int leading = 16) {
  return (address & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// Work is the tiles of a product, in the order in which clusters take them: GROUP pairs of tiles
// below one another, then those to the right of them, so that what they share is in L2.
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

// A part is 8 rows of 64 columns of a tile. It passes through shared memory as a box of a tensor map:
// 8 rows of 128 bytes, swizzled. A warp has 16 rows of a tile; the first 8 are in its even parts.
constexpr int PART = 8 * 64 * 2; // bytes
constexpr int WARPS = 2 * WARPGROUP / WARP;

__device__ __forceinline__ uint32_t load_pair(uint32_t from) {
  uint32_t pair;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(from) : "memory");
  return pair;
}
__device__ __forceinline__ void store_pair(uint32_t to, uint32_t pair) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pair) : "memory"); }

// stored makes a warp's stores to shared memory visible to copies that its lanes start.
__device__ __forceinline__ void stored() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
}
// copy_part_out starts the copy of a part to column c and row r of a matrix. parts_out commits a
// group of copies. Later, await_parts_read waits until the thread's groups have read shared memory,
// and await_parts_out until they are complete.
__device__ __forceinline__ void copy_part_out(uint32_t from, const TensorMap *to, int c, int r) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(to), "r"(from), "r"(c), "r"(r) : "memory");
}
__device__ __forceinline__ void parts_out() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
__device__ __forceinline__ void await_parts_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ __forceinline__ void await_parts_out() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Lane is a lane's position in a part: two channels of each of the 8 octets of one row, as in the
// accumulators.
struct Lane {
  int index;
  __device__ __forceinline__ Lane() : index(threadIdx.x % WARP) {}
  __device__ __forceinline__ bool first() const { return index == 0; }
  // pair is the offset of its two channels of an octet. The offsets of the 32 lanes are in different
  // banks.
  __device__ __forceinline__ uint32_t pair(int octet) const { return index / 4 * 128 + ((index / 4 ^ octet) << 4) + index % 4 * 4; }
};

// Spot is the first row and column of a warp's share of a tile.
struct Spot {
  int row, col;
  __device__ __forceinline__ int row_of(int part) const { return row + part % 2 * 8; }
  __device__ __forceinline__ int col_of(int part) const { return col + part / 2 * 64; }
};

// multiply_tiles computes a product's tiles. copy starts the copies of a stage. made is the epilogue:
// made.take receives a tile's sums, and made.put computes one of Made::PARTS parts from them, spread
// evenly over the products of the next tile, so that memory is busy all the time. It has
// Made::SHARED bytes of shared memory, a multiple of 1024, and Made::BARRIERS barriers.
template <int Columns, typename Copy, typename Made>
__device__ __forceinline__ void multiply_tiles(Work work, int k, Copy copy, Made made) {
  extern __shared__ char memory[];
  uint32_t stages = (shared_address(memory) + 1023) / 1024 * 1024, parts = stages + STAGES * STAGE;
  uint32_t full = parts + Made::SHARED, empty = full + 8 * STAGES;
  int block, warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP, steps = (k + DEPTH - 1) / DEPTH;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
  if (threadIdx.x == 0) {
    // A stage is empty when both warpgroups of both blocks are done with it.
    for (int s = 0; s < STAGES; s++) mbarrier_init(full + 8 * s, 1), mbarrier_init(empty + 8 * s, 4);
    for (int i = 0; i < Made::BARRIERS; i++) mbarrier_init(empty + 8 * (STAGES + i), 1);
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
    made.start(parts, empty + 8 * STAGES, threadIdx.x / WARP - WARPGROUP / WARP);
    int before = 0;
    auto multiply = [&](bool add) {
      mbarrier_await(full + 8 * stage, phase);
      uint64_t a = describe(stages + stage * STAGE + (warpgroup - 1) * TILE / 2), b = describe(stages + stage * STAGE + TILE, Columns ? TILE / 2 : 16);
      wgmma_fence();
#pragma unroll
      for (int c = 0; c < DEPTH / 16; c++) wgmma_64x256<Columns>(d, a + 2 * c, b + (Columns ? 128 : 2) * c, add || c > 0);
      wgmma_commit();
    };
    // The previous step's products are done, while the last ones continue.
    auto advance = [&](bool first) {
      wgmma_wait<1>();
      if (!first) release(before);
      before = stage;
      next();
    };
    for (int i = blockIdx.x / 2; i < work.total; i += gridDim.x / 2) {
      work.at(i, block, row, col);
      made.next = Spot{row + (warpgroup - 1) * 64 + thread / WARP * 16, col};
      int s = 0;
#pragma unroll
      for (int p = 0; p < Made::PARTS; p++) {
        multiply(p > 0);
        advance(p == 0); // before the part is computed: the stage can be filled meanwhile
        made.put(p, false);
#pragma unroll 1
        for (s++; s < steps * (p + 1) / Made::PARTS; s++) {
          multiply(true);
          advance(false);
        }
      }
      made.spot = made.next;
      wgmma_wait<0>();
      release(before);
      made.take(d);
    }
#pragma unroll
    for (int p = 0; p < Made::PARTS; p++) made.put(p, true);
    await_parts_out();
  }
  cluster_sync(); // a block stays resident while the other may arrive at its barriers
}

#ifndef BACKWARD
// gated computes two channels of y, as swiglu does.
__device__ __forceinline__ uint32_t gated(uint32_t gate, uint32_t up) {
  return pack_bf16(swiglu_of(low(gate), low(up)), swiglu_of(high(gate), high(up)));
}

// Activation holds the rounded products of a tile: half of the columns are gate's, the other half
// up's. A warp has shared memory for one part of each output.
struct Activation {
#ifdef KEEP
  static constexpr int OUTPUTS = 3;
  const TensorMap *kept_gate, *kept_up;
#else
  static constexpr int OUTPUTS = 1;
#endif
  static constexpr int PARTS = 2 * ROWS / 64, SHARED = WARPS * OUTPUTS * PART, BARRIERS = 0;
  const TensorMap *y;
  Spot spot, next; // of this tile, and of the one being multiplied
  Lane lane;
  uint32_t part;
  uint32_t gate[PARTS][8], up[PARTS][8];

  __device__ __forceinline__ void start(uint32_t parts, uint32_t, int warp) { part = parts + warp * OUTPUTS * PART; }
  __device__ __forceinline__ void take(const float d[SUMS][4]) {
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
      int half = p % 2, j = p / 2 * 8;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        gate[p][i] = pack_bf16(d[j + i][2 * half], d[j + i][2 * half + 1]);
        up[p][i] = pack_bf16(d[SUMS / 2 + j + i][2 * half], d[SUMS / 2 + j + i][2 * half + 1]);
      }
    }
  }
  __device__ __forceinline__ void put(int p, bool) {
    await_parts_read();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint32_t at = part + lane.pair(i);
      store_pair(at, gated(gate[p][i], up[p][i]));
#ifdef KEEP
      store_pair(at + PART, gate[p][i]), store_pair(at + 2 * PART, up[p][i]);
#endif
    }
    stored();
    if (lane.first()) {
      int r = spot.row_of(p), c = spot.col_of(p);
      copy_part_out(part, y, c, r);
#ifdef KEEP
      copy_part_out(part + PART, kept_gate, c, r), copy_part_out(part + 2 * PART, kept_up, c, r);
#endif
      parts_out();
    }
  }
};

// linear_swiglu_tiles: y [rows cols] of x [rows k], gate and up [cols k]. One block copies the rows
// of gate, the other those of up.
extern "C" __global__ void __attribute__((cluster_dims(2, 1, 1))) __launch_bounds__(3 * WARPGROUP, 1)
linear_swiglu_tiles(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap gate, const __grid_constant__ TensorMap up,
                    const __grid_constant__ TensorMap y,
#ifdef KEEP
                    const __grid_constant__ TensorMap kept_gate, const __grid_constant__ TensorMap kept_up,
#endif
                    int rows, int cols, int k) {
  auto copy = [&](uint32_t to, int block, int at, int row, int col, uint32_t barrier) {
    copy_box(to, &x, at, row, barrier);
    copy_box_to_both(to + (1 + block) * TILE, block ? &up : &gate, at, col, barrier);
  };
  Activation made;
  made.y = &y;
#ifdef KEEP
  made.kept_gate = &kept_gate, made.kept_up = &kept_up;
#endif
  made.spot = Spot{rows, 0}; // no tile yet: copies to outside of the matrix do nothing
  multiply_tiles<0>(Work(rows, cols, ROWS), k, copy, made);
}
#else
// Slope holds a tile of the gradient of y, rounded as in swiglu_backward. A warp has shared memory
// for two parts of gate and up: gradients replace one of them while the next one arrives.
struct Slope {
  static constexpr int PARTS = 2 * WIDE / 64, SLOTS = 2, SLOT = 2 * PART, SHARED = WARPS * SLOTS * SLOT, BARRIERS = WARPS * SLOTS;
  const TensorMap *gate, *up, *dgate, *dup;
  Spot spot, next; // of this tile, and of the one being multiplied
  Lane lane;
  uint32_t slots, barriers;
  int phase;
  uint32_t dy[PARTS][8];

  // request starts the copies of a part of gate and up.
  __device__ __forceinline__ void request(Spot from, int p) {
    uint32_t slot = slots + p % SLOTS * SLOT, barrier = barriers + p % SLOTS * 8;
    int r = from.row_of(p), c = from.col_of(p);
    mbarrier_expect(barrier, SLOT);
    copy_box(slot, gate, c, r, barrier), copy_box(slot + PART, up, c, r, barrier);
  }
  __device__ __forceinline__ void start(uint32_t parts, uint32_t first_barrier, int warp) {
    slots = parts + warp * SLOTS * SLOT, barriers = first_barrier + warp * SLOTS * 8, phase = 0;
    if (lane.first()) request(spot, 0);
  }
  __device__ __forceinline__ void take(const float d[SUMS][4]) {
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
      int half = p % 2, j = p / 2 * 8;
#pragma unroll
      for (int i = 0; i < 8; i++) dy[p][i] = pack_bf16(d[j + i][2 * half], d[j + i][2 * half + 1]);
    }
  }
  __device__ __forceinline__ void put(int p, bool last) {
    uint32_t slot = slots + p % SLOTS * SLOT;
    if (lane.first()) {
      await_parts_read(); // of the previous part, whose slot the next one uses
      if (p + 1 < PARTS)
        request(spot, p + 1);
      else if (!last)
        request(next, 0);
    }
    __syncwarp();
    mbarrier_await(barriers + p % SLOTS * 8, phase);
    if (p % SLOTS == SLOTS - 1) phase ^= 1;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint32_t at = slot + lane.pair(i), g = load_pair(at), u = load_pair(at + PART), d = dy[p][i];
      float dg[2], du[2];
      swiglu_grad(low(g), low(u), low(d), dg[0], du[0]);
      swiglu_grad(high(g), high(u), high(d), dg[1], du[1]);
      store_pair(at, pack_bf16(dg[0], dg[1])), store_pair(at + PART, pack_bf16(du[0], du[1]));
    }
    stored();
    if (lane.first()) {
      int r = spot.row_of(p), c = spot.col_of(p);
      copy_part_out(slot, dgate, c, r), copy_part_out(slot + PART, dup, c, r);
      parts_out();
    }
  }
};

// linear_swiglu_backward_tiles: dgate and dup [rows cols] of dz [rows k], down [k cols], gate and up
// [rows cols]. Each block copies half of the columns of down.
extern "C" __global__ void __attribute__((cluster_dims(2, 1, 1))) __launch_bounds__(3 * WARPGROUP, 1)
linear_swiglu_backward_tiles(const __grid_constant__ TensorMap dz, const __grid_constant__ TensorMap down, const __grid_constant__ TensorMap gate,
                             const __grid_constant__ TensorMap up, const __grid_constant__ TensorMap dgate, const __grid_constant__ TensorMap dup,
                             int rows, int cols, int k) {
  auto copy = [&](uint32_t to, int block, int at, int row, int col, uint32_t barrier) {
    copy_box(to, &dz, at, row, barrier);
#pragma unroll
    for (int i = 0; i < 2; i++) copy_box_to_both(to + TILE + (2 * block + i) * TILE / 2, &down, col + (2 * block + i) * 64, at, barrier);
  };
  Slope made;
  made.gate = &gate, made.up = &up, made.dgate = &dgate, made.dup = &dup;
  made.spot = Spot{rows, 0}; // no tile yet: copies from outside of the matrix give zeros, copies to it do nothing
  multiply_tiles<1>(Work(rows, cols, WIDE), k, copy, made);
}
#endif
