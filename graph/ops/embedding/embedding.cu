// x = the rows of w selected by tokens, and dw = the sums of dx by token.
//
// dw must not depend on the order in which blocks run, so positions are sorted by id first: (id,
// position) makes all keys distinct, so there is only one sorted order. The sorted positions are
// divided into chunks of `each`, and a block sums the runs of equal ids in a chunk. A run within
// one chunk gives a row of dw. A run across several chunks gives one partial sum per chunk, which
// embedding_dw_rows adds in order.

constexpr int SHARE = 8;

__device__ __forceinline__ uint64_t place_of(uint32_t id, uint32_t position) { return (uint64_t)id << 32 | position; }
__device__ __forceinline__ uint32_t id_of(uint64_t key) { return (uint32_t)(key >> 32); }

// lower_bound is the number of keys in [first, last) that are less than key.
__device__ __forceinline__ int lower_bound(const uint64_t *keys, int first, int last, uint64_t key) {
  int begin = first;
  while (first < last) {
    int middle = first + (last - first) / 2;
    if (keys[middle] < key)
      first = middle + 1;
    else
      last = middle;
  }
  return first - begin;
}

#ifdef X_T
constexpr int WIDE = sizeof(W_T) + sizeof(X_T) == 4 ? 8 : 4;

// A block copies SHARE elements per thread of one row. A token outside the table, which the data
// loader rejects, becomes NaN, so that it can't go unnoticed.
template <int Width> __device__ __forceinline__ void copy_tile(const W_T *from, X_T *to, bool known, int cols) {
  float v[SHARE];
  load_share<Width, SHARE>(from, threadIdx.x, blockDim.x, known ? cols : 0, v);
#pragma unroll
  for (int i = 0; i < SHARE; i++) v[i] = known ? v[i] : __int_as_float(0x7fffffff);
  store_share<Width, SHARE>(to, threadIdx.x, blockDim.x, cols, v);
}

extern "C" __global__ void __launch_bounds__(256)
embedding(const int *tokens, const int *next, const W_T *w, X_T *x, int64_t stride_w, int64_t stride_x, int cols, int vocab, int tiles) {
  int64_t row = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE, id = tokens[row];
  if (next != nullptr && id < 0) id = next[row];
  bool known = (uint32_t)id < (uint32_t)vocab;
  w += (known ? id : 0) * stride_w + first, x += row * stride_x + first;
  if (cols % WIDE == 0 && aligned<WIDE>(w, stride_w) && aligned<WIDE>(x, stride_x))
    copy_tile<WIDE>(w, x, known, cols - first);
  else
    copy_tile<1>(w, x, known, cols - first);
}
#endif

#ifdef DX_T
// embedding_dw_sort makes the keys of SORTED tokens and sorts them (bitonic sort).
extern "C" __global__ void __launch_bounds__(SORTED / 2) embedding_dw_sort(const int *tokens, uint64_t *keys, int n) {
  __shared__ uint64_t a[SORTED];
  int first = blockIdx.x * SORTED;
  for (int i = threadIdx.x; i < SORTED; i += SORTED / 2)
    a[i] = first + i < n ? place_of(tokens[first + i], first + i) : ~0ull;
  __syncthreads();
  for (int size = 2; size <= SORTED; size *= 2) {
    for (int gap = size / 2; gap > 0; gap /= 2) {
      int i = 2 * threadIdx.x - (threadIdx.x & (gap - 1)); // the lower element of this thread's pair
      uint64_t low = a[i], high = a[i + gap];
      if ((low > high) == ((i & size) == 0)) a[i] = high, a[i + gap] = low;
      __syncthreads();
    }
  }
  for (int i = threadIdx.x; i < SORTED && first + i < n; i += SORTED / 2) keys[first + i] = a[i];
}

// embedding_dw_merge merges neighboring sorted runs of length run (a power of 2). A key's new index
// is its index in its own run plus the number of smaller keys in the other.
extern "C" __global__ void __launch_bounds__(256) embedding_dw_merge(const uint64_t *from, uint64_t *to, int n, int run) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int own = i / run * run, other = own ^ run;
  uint64_t key = from[i];
  int before = lower_bound(from, min(other, n), min(other + run, n), key);
  to[min(own, other) + (i - own) + before] = key;
}

// embedding_dw_starts finds where each id's run begins; starts[vocab] is where the last one ends.
extern "C" __global__ void __launch_bounds__(256) embedding_dw_starts(const uint64_t *keys, int *starts, int n, int vocab) {
  int id = blockIdx.x * blockDim.x + threadIdx.x;
  if (id <= vocab) starts[id] = lower_bound(keys, 0, n, place_of(id, 0));
}

// store_row writes a row of dw: the sum, plus z if it exists.
template <int Width> __device__ __forceinline__ void store_row(const float *z, DW_T *dw, int cols, float (&sum)[SHARE]) {
  if (z != nullptr) {
    float v[SHARE];
    load_share<Width, SHARE>(z, threadIdx.x, blockDim.x, cols, v);
#pragma unroll
    for (int e = 0; e < SHARE; e++) sum[e] += v[e];
  }
  store_share<Width, SHARE>(dw, threadIdx.x, blockDim.x, cols, sum);
}

// at is a row of z, which may be null.
__device__ __forceinline__ const float *at(const float *z, int64_t offset) { return z == nullptr ? z : z + offset; }

// A chunk's partial sums are two rows: 0 is for the run that continues from the previous chunk or
// that the chunk begins with, 1 for the one that begins later and continues in the next chunk.
template <int Width>
__device__ __forceinline__ void sum_chunk(const uint64_t *sorted, const DX_T *dx, const float *z, DW_T *dw, float *partials, int64_t stride_dx,
                                          int64_t stride_z, int64_t stride_dw, int count, int vocab, int all_cols, int cols) {
  constexpr int AHEAD = 4; // rows in flight
  float sum[SHARE] = {};
  int began = 0;
  for (int i = 0; i < count; i += AHEAD) {
    float v[AHEAD][SHARE];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      int k = min(i + u, count - 1);
      load_share<Width, SHARE>(dx + (int64_t)(uint32_t)sorted[k + 1] * stride_dx, threadIdx.x, blockDim.x, cols, v[u]);
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      int k = i + u;
      if (k >= count) break;
#pragma unroll
      for (int e = 0; e < SHARE; e++) sum[e] += v[u][e];
      uint32_t id = id_of(sorted[k + 1]);
      bool last = k + 1 == count, goes_on = id_of(sorted[k + 2]) == id;
      if (!last && goes_on) continue;
      bool came = began == 0 && id_of(sorted[0]) == id;
      if (id < (uint32_t)vocab) {
        if (came || goes_on)
          store_share<Width, SHARE>(partials + (began == 0 ? 0 : all_cols), threadIdx.x, blockDim.x, cols, sum);
        else
          store_row<Width>(at(z, id * stride_z), dw + id * stride_dw, cols, sum);
      }
      began = k + 1;
#pragma unroll
      for (int e = 0; e < SHARE; e++) sum[e] = 0.f;
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
embedding_dw_chunks(const uint64_t *keys, const DX_T *dx, const float *z, DW_T *dw, float *partials, int64_t stride_dx, int64_t stride_z,
                    int64_t stride_dw, int n, int vocab, int cols, int each, int tiles) {
  __shared__ uint64_t sorted[MOST + 2]; // with the neighbors on both sides
  int chunk = blockIdx.x / tiles, begin = chunk * each, count = min(each, n - begin);
  int first = blockIdx.x % tiles * blockDim.x * SHARE;
  for (int i = threadIdx.x; i < count + 2; i += blockDim.x) {
    int k = begin + i - 1;
    sorted[i] = k >= 0 && k < n ? keys[k] : ~0ull; // no id
  }
  __syncthreads();
  dx += first, z = at(z, first), dw += first, partials += (int64_t)chunk * 2 * cols + first;
  if (cols % 4 == 0 && aligned<4>(dx, stride_dx) && aligned<4>(z, stride_z) && aligned<4>(dw, stride_dw) && aligned<4>(partials, cols))
    sum_chunk<4>(sorted, dx, z, dw, partials, stride_dx, stride_z, stride_dw, count, vocab, cols, cols - first);
  else
    sum_chunk<1>(sorted, dx, z, dw, partials, stride_dx, stride_z, stride_dw, count, vocab, cols, cols - first);
}

// embedding_dw_rows writes the rows of dw that no chunk wrote: those without tokens, and sums over
// several chunks.
template <int Width>
__device__ __forceinline__ void sum_partials(const float *partials, const float *z, DW_T *dw, int start, int end, int each, int all_cols, int cols) {
  float sum[SHARE] = {};
  if (start < end) {
#pragma unroll 4
    for (int chunk = start / each; chunk <= (end - 1) / each; chunk++) {
      float v[SHARE];
      int row = 2 * chunk + (chunk * each < start ? 1 : 0);
      load_share<Width, SHARE>(partials + (int64_t)row * all_cols, threadIdx.x, blockDim.x, cols, v);
#pragma unroll
      for (int e = 0; e < SHARE; e++) sum[e] += v[e];
    }
  }
  store_row<Width>(z, dw, cols, sum);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_dw_rows(const int *starts, const float *partials, const float *z, DW_T *dw, int64_t stride_z, int64_t stride_dw, int cols, int each,
                  int tiles) {
  int64_t id = blockIdx.x / tiles;
  int first = blockIdx.x % tiles * blockDim.x * SHARE, start = starts[id], end = starts[id + 1];
  if (start < end && start / each == (end - 1) / each) return;
  z = at(z, id * stride_z + first), dw += id * stride_dw + first, partials += first;
  if (cols % 4 == 0 && aligned<4>(z, stride_z) && aligned<4>(dw, stride_dw) && aligned<4>(partials, cols))
    sum_partials<4>(partials, z, dw, start, end, each, cols, cols - first);
  else
    sum_partials<1>(partials, z, dw, start, end, each, cols, cols - first);
}
#endif
