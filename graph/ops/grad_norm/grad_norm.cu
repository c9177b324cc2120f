// norm = sqrt(sum of g^2). Squares are added in double, since float would overflow or underflow;
// each block adds every gridDim-th tile, and one block adds the blocks' sums.

constexpr int SHARE = 16;

extern "C" __global__ void __launch_bounds__(256) grad_norm_parts(const float *g, double *parts, int64_t n) {
  __shared__ double shared[33];
  constexpr int TILE = 256 * SHARE;
  bool wide = aligned<4>(g, n);
  double sum = 0.;
  for (int64_t first = (int64_t)blockIdx.x * TILE; first < n; first += (int64_t)gridDim.x * TILE) {
    float v[SHARE];
    int rest = (int)min(n - first, (int64_t)TILE);
    if (wide)
      load_share<4, SHARE>(g + first, threadIdx.x, 256, rest, v);
    else
      load_share<1, SHARE>(g + first, threadIdx.x, 256, rest, v);
#pragma unroll
    for (int i = 0; i < SHARE; i++) sum += (double)v[i] * (double)v[i];
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// total is the sum of the blocks' sums, in thread 0.
__device__ __forceinline__ double total(const double *parts, int count) {
  __shared__ double shared[33];
  double sum = 0.;
  for (int i = threadIdx.x; i < count; i += 256) sum += parts[i];
  return block_sum(sum, shared);
}

extern "C" __global__ void __launch_bounds__(256) grad_norm(const double *parts, float *norm, int count) {
  double sum = total(parts, count);
  if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

extern "C" __global__ void __launch_bounds__(256) grad_square(const double *parts, float *square, int count) {
  double sum = total(parts, count);
  if (threadIdx.x == 0) *square = (float)sum;
}

extern "C" __global__ void grad_root(const float *square, float *norm) { *norm = (float)sqrt((double)*square); }
