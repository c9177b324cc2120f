// selective_scan_states computes only `saved` of selective_scan.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
selective_scan_states(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *b,
                      const float *d, const int *documents, const float *starts, H_T *saved, int length, int tokens,
                      int channels, int u_stride, int dt_stride, int b_stride) {
  Inputs in = {u, dt, dt_bias, a_log, b, nullptr, d, nullptr, documents, tokens, channels, u_stride, dt_stride, b_stride, 0, 0};
  Place at(blockIdx.y, channels);
  Segment seg(blockIdx.z, length, tokens);
  float h[TILE][PER], rate[TILE][PER], total[TILE] = {};
  at.rates(a_log, rate);
  at.load(h, starts, ((int64_t)blockIdx.x * gridDim.z + blockIdx.z) * PIECES);
  scan<false>(in, at, seg, h, rate, total, saved, nullptr, 0);
}
