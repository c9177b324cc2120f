// tile_of_block is tile blockIdx.y of a matrix with this many columns.
__device__ __forceinline__ Tile tile_of_block(int columns) {
  int across = (columns + TILE - 1) / TILE;
  return Tile(blockIdx.y / across * TILE, blockIdx.y % across * TILE);
}

// head_of is a span's head, of this width, of an activation.
template <typename Type> __device__ __forceinline__ Type *head_of(Type *x, int64_t stride, Span s, int width) {
  return x + s.row * stride + (int64_t)s.head * width;
}

// states_of is, for each chunk, the sum over its tokens of a factor of keys, x, times one of
// values, y: what the chunk adds to the state, or its reads to the state's gradient.
template <typename Type>
__device__ __forceinline__ void states_of(const float *x, const Type *y, float *states, int64_t stride, int sequence, int tokens, int heads,
                                          int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, true>{x + s.index * CHUNK * keys, keys, keys, s.n},
           Factor<Type, true>{head_of(y, stride, s, values), stride, values, s.n});
  states += s.index * keys * values;
  tile.each(keys, values, [&](int i, int j, float sum) { states[(int64_t)i * values + j] = sum; });
}

extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_written(const float *writes, const V_T *v, float *states, int64_t stride, int sequence, int tokens, int heads, int keys,
                          int values) {
  states_of(writes, v, states, stride, sequence, tokens, heads, keys, values);
}

// linear_recurrence_chain turns what each chunk adds to the state into the state before the chunk
// or, with `backwards`, what it adds to the gradient into the gradient after the chunk. A thread
// handles one element of a sequence's states. start is the initial state and receives the final
// one; it is null if the initial state is zero.
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_chain(float *states, const float *total, float *start, int sequence, int chunks, int keys, int values, int backwards) {
  constexpr int AHEAD = 8;
  int64_t size = (int64_t)keys * values, element = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (element >= size) return;
  states += blockIdx.y * chunks * size + element;
  total += (int64_t)blockIdx.y * chunks * keys + element / values;
  if (start) start += (sequence + blockIdx.y) * size + element;
  float state = start ? *start : 0.f;
  for (int c = 0; c < chunks; c += AHEAD) {
    float added[AHEAD], by[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (c + a < chunks) {
        int at = backwards ? chunks - 1 - c - a : c + a;
        added[a] = states[at * size], by[a] = total[(int64_t)at * keys];
      }
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (c + a < chunks) {
        int at = backwards ? chunks - 1 - c - a : c + a;
        states[at * size] = state;
        state = by[a] * state + added[a];
      }
  }
  if (start) *start = state;
}

#ifdef O_T
extern "C" __global__ void __launch_bounds__(256)
linear_recurrence_output(const V_T *v, const float *scores, const float *reads, const float *states, O_T *o, int64_t stride_v,
                         int64_t stride_o, int sequence, int tokens, int heads, int keys, int values) {
  Span s = span_of_block(sequence, tokens, heads);
  Tile tile = tile_of_block(values);
  tile.add(Factor<float, false>{reads + s.index * CHUNK * keys, keys, s.n, keys},
           Factor<float, true>{states + s.index * keys * values, values, values, keys});
  tile.add(Factor<float, false>{scores + s.index * CHUNK * CHUNK, CHUNK, CHUNK, CHUNK},
           Factor<V_T, true>{head_of(v, stride_v, s, values), stride_v, values, s.n});
  o = head_of(o, stride_o, s, values);
  tile.each(s.n, values, [&](int t, int j, float sum) { store(o + t * stride_o + j, sum); });
}
#endif
