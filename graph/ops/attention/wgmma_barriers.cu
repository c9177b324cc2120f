// Barriers in shared memory, and tensor-map (TMA) copies that signal them. The phases of a barrier
// alternate in parity, starting at 0.

__device__ __forceinline__ void stage_init(uint64_t *barrier, int arrivals) { mbarrier_init(shared_address(barrier), arrivals); }
__device__ __forceinline__ void stage_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void stage_expect(uint64_t *barrier, int bytes) { mbarrier_expect(shared_address(barrier), bytes); }
__device__ __forceinline__ void stage_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void stage_await(uint64_t *barrier, int parity) { mbarrier_await(shared_address(barrier), parity); }

// Ring is the position of one side of a ring of Stages stages, and the parity of its phase.
template <int Stages> struct Ring {
  int stage, parity;
  __device__ __forceinline__ void next() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

// copy_panels starts copying Rows rows and D channels of a matrix to a tile, starting at (row,
// channel), and signals the barrier on completion.
template <int Rows> __device__ __forceinline__ void copy_panels(bf16 *tile, const TensorMap *from, int channel, int row, uint64_t *barrier) {
#pragma unroll
  for (int c = 0; c < D; c += PANEL) copy_box(shared_address(tile + c * Rows), from, channel + c, row, shared_address(barrier));
}
// copy_floats starts copying `count` floats, a multiple of 4.
__device__ __forceinline__ void copy_floats(float *to, const float *from, int count, uint64_t *barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from),
               "r"(4 * count), "r"(shared_address(barrier))
               : "memory");
}
