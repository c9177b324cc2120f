// Each warp of the grid handles one query of one head. delta is [B H padded].
extern "C" __global__ void __launch_bounds__(WARPS *WARP)
attention_dq_rows(const Q_T *q, const K_T *k, const V_T *v, const DO_T *dout, const float *lse, const float *delta, DQ_T *dq,
                  int rows, int tokens, int padded, int heads, int group, int window, float scale, const int *start, int64_t stride_q,
                  int64_t stride_k, int64_t stride_v, int64_t stride_lse, int64_t stride_do, int64_t stride_dq) {
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (i >= (int64_t)rows * tokens * heads) return;
  int h = i % heads, t = i / heads % tokens;
  int64_t row = i / heads, text = row - t;
  float qi[SHARE], doi[SHARE], kj[SHARE], vj[SHARE], dqi[SHARE] = {};
  Head<const Q_T>(q, stride_q, row, h).load(0, qi);
  Head<const DO_T>(dout, stride_do, row, h).load(0, doi);
  Head<const K_T> keys(k, stride_k, text, h / group);
  Head<const V_T> values(v, stride_v, text, h / group);
  float lse_i = lse[row * stride_lse + h], delta_i = delta[(text / tokens * heads + h) * padded + t];
  for (int j = first_key(start + text, t, tokens, window); j <= t; j++) {
    keys.load(j, kj), values.load(j, vj);
    float p = expf(dot(qi, kj) * scale - lse_i);
    add_scaled(dqi, p * (dot(doi, vj) - delta_i), kj);
  }
  Head<DQ_T>(dq, stride_dq, row, h).put(0, dqi, scale);
}

// Each warp of the grid handles one key, with all query heads that share it.
extern "C" __global__ void __launch_bounds__(WARPS *WARP)
attention_dkv_rows(const Q_T *q, const K_T *k, const V_T *v, const DO_T *dout, const float *lse, const float *delta, DK_T *dk,
                   DV_T *dv, int rows, int tokens, int padded, int heads, int group, int window, float scale, const int *start,
                   int64_t stride_q, int64_t stride_k, int64_t stride_v, int64_t stride_lse, int64_t stride_do, int64_t stride_dk,
                   int64_t stride_dv) {
  int key_heads = heads / group;
  int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (i >= (int64_t)rows * tokens * key_heads) return;
  int key_head = i % key_heads, j = i / key_heads % tokens;
  int64_t row = i / key_heads, text = row - j;
  float qi[SHARE], doi[SHARE], kj[SHARE], vj[SHARE], dkj[SHARE] = {}, dvj[SHARE] = {};
  Head<const K_T>(k, stride_k, row, key_head).load(0, kj);
  Head<const V_T>(v, stride_v, row, key_head).load(0, vj);
  int end = query_end(start + text, j, tokens, window);
  for (int h = key_head * group; h < (key_head + 1) * group; h++) {
    Head<const Q_T> queries(q, stride_q, text, h);
    Head<const DO_T> douts(dout, stride_do, text, h);
    const float *deltas = delta + (text / tokens * heads + h) * padded;
    for (int t = j; t < end; t++) {
      queries.load(t, qi), douts.load(t, doi);
      float p = expf(dot(qi, kj) * scale - lse[(text + t) * stride_lse + h]);
      add_scaled(dvj, p, doi);
      add_scaled(dkj, p * (dot(doi, vj) - deltas[t]), qi);
    }
  }
  Head<DK_T>(dk, stride_dk, row, key_head).put(0, dkj, scale);
  Head<DV_T>(dv, stride_dv, row, key_head).put(0, dvj, 1.f);
}
