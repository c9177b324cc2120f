#ifdef DO_T
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_read(const float *reads, const DO_T *dout, float *dstates, int64_t stride, int sequence, int tokens, int heads, int keys,
                       int values) {
  states_of(reads, dout, dstates, stride, sequence, tokens, heads, keys, values);
}

// dscores [CHUNK CHUNK] is symmetric: for tokens s and t, it is the gradient of what the later one
// reads from the earlier one.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dscores(const V_T *v, const DO_T *dout, float *dscores, int64_t stride_v, int64_t stride_do, int sequence, int tokens,
                          int heads, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile(0, 0);
  tile.add(Factor<DO_T, false>{head_of(dout, stride_do, s, values), stride_do, s.n, values},
           Factor<V_T, false>{head_of(v, stride_v, s, values), stride_v, s.n, values});
  dscores += s.index * CHUNK * CHUNK;
  tile.each(CHUNK, CHUNK, [&](int t, int from, float sum) {
    if (from <= t) dscores[t * CHUNK + from] = dscores[from * CHUNK + t] = sum;
  });
}

// dreads, and dwrites in blocks with z = 1.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dkeys(const V_T *v, const DO_T *dout, const float *states, const float *dstates, float *dreads, float *dwrites,
                        int64_t stride_v, int64_t stride_do, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(keys);
  int64_t state = s.index * keys * values;
  if (blockIdx.z == 0)
    tile.add(Factor<DO_T, false>{head_of(dout, stride_do, s, values), stride_do, s.n, values},
             Factor<float, false>{states + state, values, keys, values});
  else
    tile.add(Factor<V_T, false>{head_of(v, stride_v, s, values), stride_v, s.n, values},
             Factor<float, false>{dstates + state, values, keys, values});
  float *to = (blockIdx.z == 0 ? dreads : dwrites) + s.index * CHUNK * keys;
  tile.each(CHUNK, keys, [&](int t, int i, float sum) { to[(int64_t)t * keys + i] = sum; });
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_dvalues(const DO_T *dout, const float *scores, const float *writes, const float *dstates, DV_T *dv, int64_t stride_do,
                          int64_t stride_dv, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, true>{scores + s.index * CHUNK * CHUNK, CHUNK, CHUNK, CHUNK},
           Factor<DO_T, true>{head_of(dout, stride_do, s, values), stride_do, values, s.n});
  tile.add(Factor<float, false>{writes + s.index * CHUNK * keys, keys, s.n, keys},
           Factor<float, true>{dstates + s.index * keys * values, values, values, keys});
  dv = head_of(dv, stride_dv, s, values);
  tile.each(s.n, values, [&](int t, int j, float sum) { store(dv + t * stride_dv + j, sum); });
}

// through [keys] is the gradient of the logarithm of a chunk's total, with a warp per channel.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_through(const float *states, const float *dstates, const float *total, float *through, int channels, int values) {
  int channel = blockIdx.x * (256 / WARP) + threadIdx.x / WARP;
  if (channel >= channels) return;
  float sum = 0.f;
  for (int j = threadIdx.x % WARP; j < values; j += WARP) sum += states[(int64_t)channel * values + j] * dstates[(int64_t)channel * values + j];
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) through[channel] = total[channel] * sum;
}
#endif
