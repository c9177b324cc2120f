// Each warp of the grid handles one query of one head.
extern "C" __global__ void __launch_bounds__(WARPS *WARP)
attention_rows(const Q_T *q, const K_T *k, const V_T *v, O_T *o, float *lse, int rows, int tokens, int heads, int group,
               int window, float scale, const int *start, int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_o,
               int64_t stride_lse) {
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (i >= (int64_t)rows * tokens * heads) return;
  int h = i % heads, t = i / heads % tokens;
  int64_t row = i / heads, text = row - t;
  Softmax s(scale);
  Head<const Q_T>(q, stride_q, row, h).load(0, s.q);
  int first = first_key(start + text, t, tokens, window);
  s.attend(Head<const K_T>(k, stride_k, text, h / group), Head<const V_T>(v, stride_v, text, h / group), first, t + 1 - first);
  Head<O_T>(o, stride_o, row, h).put(0, s.o, 1.f / s.sum);
  if (threadIdx.x % WARP == 0) lse[row * stride_lse + h] = s.greatest + logf(s.sum);
}
