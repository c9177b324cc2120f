// The recurrence chunk by chunk, forward and backward: README.md has the formulas. All chunks are
// computed in parallel, except for the recurrence of their states. A chunk's arrays in the
// workspace have CHUNK rows, with zeros beyond the text's end. Pointers and strides are in
// elements; a sequence is a head of a row of the batch.

constexpr int LEVELS = 6; // of halving
static_assert(CHUNK == 1 << LEVELS, "a chunk is halved down to single tokens");

#ifdef FAST
__device__ __forceinline__ float decay(float log) { return fast_exp(log); }
#else
__device__ __forceinline__ float decay(float log) { return expf(log); }
#endif

// Span is a block's chunk.
struct Span {
  int64_t index;      // among the chunks in the workspace
  int64_t row;        // the first of its rows in [B T]
  int head, first, n; // n tokens of the text, from first on
};

__device__ __forceinline__ Span span_of_block(int sequence, int tokens, int heads) {
  int chunks = (tokens + CHUNK - 1) / CHUNK, first = blockIdx.x % chunks * CHUNK;
  sequence += blockIdx.x / chunks;
  return {(int64_t)blockIdx.x, (int64_t)(sequence / heads) * tokens + first, sequence % heads, first, min(CHUNK, tokens - first)};
}

// Gates are the log decays of a span's channel. By document, a document's first token has a log
// decay that leaves nothing of what came before, so nothing else needs to be done: sums over
// everything that crosses the border, such as the gradient of this decay, are sums of zeros. start
// [B T] is where each token's document begins.
#define NOTHING_LEFT -1e30f

struct Borders {
#ifdef BY_DOCUMENT
  const int *start;
  int first;
  __device__ __forceinline__ Borders(const int *start, Span s) : start(start + s.row), first(s.first) {}
  __device__ __forceinline__ bool operator[](int t) const { return start[t] == first + t; }
#else
  __device__ __forceinline__ Borders(const int *, Span) {}
  __device__ __forceinline__ bool operator[](int) const { return false; }
#endif
};

#ifdef LOG_DECAYS
__constant__ float log_decays[] = {LOG_DECAYS};
struct Gates {
  float fixed;
  int n;
  Borders border;
  __device__ __forceinline__ Gates(const float *, int64_t, const int *start, Span s, int, int)
      : fixed(log_decays[s.head]), n(s.n), border(start, s) {}
  __device__ __forceinline__ float operator[](int t) const { return t >= n ? 0.f : border[t] ? NOTHING_LEFT : fixed; }
};
#else
struct Gates {
  const float *p;
  int64_t stride;
  int n;
  Borders border;
  __device__ __forceinline__ Gates(const float *g, int64_t stride, const int *start, Span s, int keys, int i)
      : p(g + s.row * stride + (int64_t)s.head * keys + i), stride(stride), n(i < keys ? s.n : 0), border(start, s) {}
  __device__ __forceinline__ float operator[](int t) const { return t >= n ? 0.f : border[t] ? NOTHING_LEFT : p[t * stride]; }
};
#endif

// Channel is column i of a span's queries or keys, with zeros where there are none.
template <typename Type> struct Channel {
  const Type *p;
  int64_t stride;
  int n;
  __device__ __forceinline__ Channel(const Type *x, int64_t stride, Span s, int keys, int i)
      : p(x + s.row * stride + (int64_t)s.head * keys + i), stride(stride), n(i < keys ? s.n : 0) {}
  __device__ __forceinline__ float operator[](int t) const { return t < n ? to_float(p[t * stride]) : 0.f; }
};
