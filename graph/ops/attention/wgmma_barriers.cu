// Barriers in shared memory, and copies by tensor maps that arrive there. Phases of a barrier
// alternate in parity, from 0 on.

__device__ __forceinline__ void stage_init(uint64_t *barrier, int arrivals) { mbarrier_init(shared_address(barrier), arrivals); }
__device__ __forceinline__ void stage_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void stage_expect(uint64_t *barrier, int bytes) { mbarrier_expect(shared_address(barrier), bytes); }
__device__ __forceinline__ void stage_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void stage_await(uint64_t *barrier, int parity) { mbarrier_await(shared_address(barrier), parity); }

// Ring is where a side of a ring of Stages is, and the parity of its phase.
template <int Stages> struct Ring {
  int stage, parity;
  __device__ __forceinline__ void next() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

// copy_panels begins to copy Rows rows and D channels of a matrix to a tile, from row and
// channel on; the barrier is told.
template <int Rows> __device__ __forceinline__ void copy_panels(bf16 *tile, const TensorMap *from, int channel, int row, uint64_t *barrier) {
#pragma unroll
  for (int c = 0; c < D; c += PANEL) copy_box(shared_address(tile + c * Rows), from, channel + c, row, shared_address(barrier));
}
// copy_floats begins to copy a multiple of 4 of them.
__device__ __forceinline__ void copy_floats(float *to, const float *from, int count, uint64_t *barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from),
               "r"(4 * count), "r"(shared_address(barrier))
               : "memory");
}
