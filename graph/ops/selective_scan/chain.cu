// selective_scan_chain computes, for each of `size` states of each row of the batch, with x = first
// (null means zero) and over `count` of the pieces in order (from the last one if backwards): ends,
// x = x, ends + decays * x. ends and decays are [B][pieces][size].
extern "C" __global__ void selective_scan_chain(float *ends, const float *decays, const float *first, int pieces, int count,
                                                int size, int backwards) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float x = first ? first[(int64_t)blockIdx.y * size + i] : 0.f;
  for (int k = 0; k < count; k++) {
    int64_t at = ((int64_t)blockIdx.y * pieces + (backwards ? pieces - 1 - k : k)) * size + i;
    float next = 0.f;
    if (k < count - 1) next = ends[at] + decays[at] * x;
    ends[at] = x;
    x = next;
  }
}
