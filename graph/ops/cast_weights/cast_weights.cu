// shadow = p in bfloat16, SHARE weights per thread.

constexpr int SHARE = 8;

template <int Width> __device__ __forceinline__ void cast_tile(bf16 *shadow, const float *p, int count) {
  float v[SHARE];
  load_share<Width, SHARE>(p, threadIdx.x, blockDim.x, count, v);
  store_share<Width, SHARE>(shadow, threadIdx.x, blockDim.x, count, v);
}

extern "C" __global__ void __launch_bounds__(256) cast_weights(bf16 *shadow, const float *p, int64_t n) {
  int64_t first = (int64_t)blockIdx.x * blockDim.x * SHARE;
  int rest = (int)min(n - first, (int64_t)blockDim.x * SHARE);
  if (aligned<8>(shadow, n) && aligned<8>(p, n))
    cast_tile<8>(shadow + first, p + first, rest);
  else
    cast_tile<1>(shadow + first, p + first, rest);
}
