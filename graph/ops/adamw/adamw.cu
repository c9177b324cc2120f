// AdamW over flat vectors, SHARE elements per thread; with SHADOW the new parameters are also
// stored in bfloat16. Values that change every step are read from device memory.

constexpr int SHARE = 8;

struct Step {
  float keep, scale; // 1 - lr * weight_decay; the factor of g
  float rate, correction; // lr / bias_correction1; 1 / sqrt(bias_correction2)
};

template <int Width>
__device__ __forceinline__ void update_tile(bf16 *shadow, float *p, const float *g, float *m, float *v, int count, Step s, float beta1,
                                            float rest1, float beta2, float rest2, float eps) {
  float a[SHARE], b[SHARE], c[SHARE], d[SHARE];
  load_share<Width, SHARE>(p, threadIdx.x, blockDim.x, count, a);
  load_share<Width, SHARE>(g, threadIdx.x, blockDim.x, count, b);
  load_share<Width, SHARE>(m, threadIdx.x, blockDim.x, count, c);
  load_share<Width, SHARE>(v, threadIdx.x, blockDim.x, count, d);
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    float grad = b[i] * s.scale;
    c[i] = beta1 * c[i] + rest1 * grad;
    d[i] = beta2 * d[i] + rest2 * grad * grad;
    a[i] = a[i] * s.keep - s.rate * c[i] / (sqrtf(d[i]) * s.correction + eps);
  }
  store_share<Width, SHARE>(p, threadIdx.x, blockDim.x, count, a);
  store_share<Width, SHARE>(m, threadIdx.x, blockDim.x, count, c);
  store_share<Width, SHARE>(v, threadIdx.x, blockDim.x, count, d);
#ifdef SHADOW
  store_share<Width, SHARE>(shadow, threadIdx.x, blockDim.x, count, a);
#endif
}

extern "C" __global__ void __launch_bounds__(256)
adamw(bf16 *shadow, float *p, const float *g, float *m, float *v, const float *norm, const float *hyper, int64_t n, float beta1,
      float rest1, float beta2, float rest2, float eps, float weight_decay, float max_norm) {
  float length = *norm;
  if (!(fabsf(length) < INF)) return; // infinite or NaN
  float lr = hyper[0], scale = hyper[3];
  Step s;
  s.keep = 1.f - lr * weight_decay;
  s.scale = max_norm > 0.f ? scale * fminf(1.f, max_norm / (scale * length + 1e-6f)) : scale;
  s.rate = lr / hyper[1];
  s.correction = 1.f / sqrtf(hyper[2]);
  int64_t first = (int64_t)blockIdx.x * blockDim.x * SHARE;
  int count = (int)min(n - first, (int64_t)blockDim.x * SHARE);
  bool wide = aligned<4>(p, n) && aligned<4>(g, n) && aligned<4>(m, n) && aligned<4>(v, n);
#ifdef SHADOW
  wide = wide && aligned<4>(shadow, n);
  shadow += first;
#endif
  p += first, g += first, m += first, v += first;
  if (wide)
    update_tile<4>(shadow, p, g, m, v, count, s, beta1, rest1, beta2, rest2, eps);
  else
    update_tile<1>(shadow, p, g, m, v, count, s, beta1, rest1, beta2, rest2, eps);
}
