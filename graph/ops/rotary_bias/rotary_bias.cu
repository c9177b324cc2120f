// Biases by distance, and the gradients of alpha and beta. HALF is D/2. Angles are double: at a
// distance of 1e6 a float angle is off by up to 0.03.

__device__ __forceinline__ void angle(int distance, int c, double base, float &sin_, float &cos_) {
  double s, t;
  sincos(distance * pow(base, -(double)c / HALF), &s, &t);
  sin_ = (float)s, cos_ = (float)t;
}

// A warp handles one distance.
extern "C" __global__ void __launch_bounds__(256)
rotary_bias(const float *alpha, const float *beta, float *bias, uint64_t base_bits, int distances) {
  double base = __longlong_as_double((int64_t)base_bits);
  int n = blockIdx.x * 8 + threadIdx.x / WARP;
  if (n >= distances) return;
  float sum = 0.f;
  for (int c = threadIdx.x % WARP; c < HALF; c += WARP) {
    float sin_, cos_, a1 = alpha[c], a2 = alpha[HALF + c], b1 = beta[c], b2 = beta[HALF + c];
    angle(n, c, base, sin_, cos_);
    sum += (a1 * cos_ - a2 * sin_) * b1 + (a2 * cos_ + a1 * sin_) * b2;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) bias[n] = sum;
}

// A block handles the pair of channels c and c + HALF.
extern "C" __global__ void __launch_bounds__(256)
rotary_bias_backward(const float *alpha, const float *beta, const float *dbias, float *dalpha, float *dbeta, uint64_t base_bits,
                     int distances) {
  __shared__ float shared[33];
  double base = __longlong_as_double((int64_t)base_bits);
  int c = blockIdx.x;
  float with_cos = 0.f, with_sin = 0.f;
  for (int n = threadIdx.x; n < distances; n += blockDim.x) {
    float sin_, cos_, d = dbias[n];
    angle(n, c, base, sin_, cos_);
    with_cos += d * cos_, with_sin += d * sin_;
  }
  with_cos = block_sum(with_cos, shared), with_sin = block_sum(with_sin, shared);
  if (threadIdx.x > 0) return;
  float a1 = alpha[c], a2 = alpha[HALF + c], b1 = beta[c], b2 = beta[HALF + c];
  dalpha[c] = b1 * with_cos + b2 * with_sin, dalpha[HALF + c] = b2 * with_cos - b1 * with_sin;
  dbeta[c] = a1 * with_cos - a2 * with_sin, dbeta[HALF + c] = a2 * with_cos + a1 * with_sin;
}
