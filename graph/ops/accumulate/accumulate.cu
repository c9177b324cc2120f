// acc = g (FIRST) or acc += g, SHARE elements a thread.

constexpr int SHARE = 8;

template <int Width> __device__ __forceinline__ void accumulate_tile(float *acc, const float *g, int count) {
  float v[SHARE];
  load_share<Width, SHARE>(g, threadIdx.x, blockDim.x, count, v);
#ifndef FIRST
  float sum[SHARE];
  load_share<Width, SHARE>(acc, threadIdx.x, blockDim.x, count, sum);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] += sum[i];
#endif
  store_share<Width, SHARE>(acc, threadIdx.x, blockDim.x, count, v);
}

extern "C" __global__ void __launch_bounds__(256) accumulate(float *acc, const float *g, int64_t n) {
  int64_t first = (int64_t)blockIdx.x * blockDim.x * SHARE;
  int rest = (int)min(n - first, (int64_t)blockDim.x * SHARE);
  if (aligned<4>(acc, n) && aligned<4>(g, n))
    accumulate_tile<4>(acc + first, g + first, rest);
  else
    accumulate_tile<1>(acc + first, g + first, rest);
}
