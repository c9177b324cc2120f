// token[b] = the index of the largest of the n logits of row b, the lowest index if several are
// equal. Each thread block finds the maximum of PART logits of one row. The block that finishes
// last reduces the blocks' results to the maximum of each row.

constexpr int THREADS = 256, SHARE = PART / THREADS;

extern "C" __global__ void __launch_bounds__(THREADS)
argmax(const float *scores, uint64_t *highest, int *token, uint32_t *counter, int n, int64_t stride) {
  __shared__ uint64_t shared[THREADS / WARP];
  __shared__ bool last;
  int parts = gridDim.x, rows = gridDim.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  begin_early();
  scores += blockIdx.y * stride;
  int first = blockIdx.x * PART;
  float x[SHARE];
#pragma unroll
  for (int i = 0; i < SHARE; i += WIDTH) {
    int j = first + i * THREADS + threadIdx.x * WIDTH;
    if (j < n) load_vector<WIDTH>(scores + j, x + i); // a vector that extends past n is still within the row
  }
  uint64_t best = 0;
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    int j = first + i / WIDTH * WIDTH * THREADS + threadIdx.x * WIDTH + i % WIDTH;
    if (j < n) best = max(best, key_of(x[i], j));
  }
  best = warp_max(best);
  if (lane == 0) shared[warp] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 1; i < THREADS / WARP; i++) best = max(best, shared[i]);
    highest[blockIdx.y * parts + blockIdx.x] = best;
    __threadfence();
    last = atomicAdd(counter, 1) == parts * rows - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int row = warp; row < rows; row += THREADS / WARP) {
    uint64_t best = 0;
    for (int i = lane; i < parts; i += WARP) best = max(best, __ldcg(highest + row * parts + i));
    best = warp_max(best);
    if (lane == 0) token[row] = number_of(best);
  }
  if (threadIdx.x == 0) *counter = 0;
}
