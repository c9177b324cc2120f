// A thread convolves V neighboring channels over a run of consecutive tokens, UNROLL at a time, and
// keeps the last J-1 tokens in registers. Runs overlap by the size of the window, which the cache
// serves.
//
// Macros: J taps; V channels per thread, 1 where addresses don't permit vectors; the types X_T and
// Y_T of the forward pass, X_T, DY_T and DX_T of the backward pass; FAST if an operand is bf16;
// BY_DOCUMENT if no tap may reach before the document of its token, which begins at starts [B T].

#define PAST (J - 1)
#define UNROLL 4

// Channels are V adjacent channels as they are stored.
template <typename Type> struct __align__(V * sizeof(Type) < 16 ? V * sizeof(Type) : 16) Channels {
  Type x[V];
};

__device__ __forceinline__ void clear_channels(float x[V]) {
#pragma unroll
  for (int k = 0; k < V; k++) x[k] = 0.f;
}

__device__ __forceinline__ float conv_sigmoid(float x) {
#ifdef FAST
  return __fdividef(1.f, 1.f + fast_exp(-x));
#else
  return 1.f / (1.f + expf(-x));
#endif
}

// load_taps loads the taps [J][V] of the channels from c on, and their biases, into registers.
__device__ __forceinline__ void load_taps(const float *w, const float *bias, int c, float tap[J][V], float b[V]) {
#pragma unroll
  for (int k = 0; k < V; k++) {
    b[k] = bias[c + k];
#pragma unroll
    for (int j = 0; j < J; j++) tap[j][k] = w[(c + k) * J + j];
  }
}

// past_of is the number of tokens before token t of a row that its taps may reach, given the row's
// starts; `there` tells whether the row has this token.
__device__ __forceinline__ int past_of(const int *starts, int t, bool there) {
#ifdef BY_DOCUMENT
  return there ? t - starts[t] : 0;
#else
  return PAST;
#endif
}

// reaches reports whether tap j of a token reaches back no further than past tokens.
__device__ __forceinline__ bool reaches(int j, int past) { return PAST - j <= past; }

// convolve is the pre-activation of the token at window[PAST], which may reach back past tokens.
__device__ __forceinline__ void convolve(const float (*window)[V], int past, const float tap[J][V], const float b[V],
                                         float v[V]) {
#pragma unroll
  for (int k = 0; k < V; k++) {
    v[k] = b[k];
#pragma unroll
    for (int j = 0; j < J; j++) v[k] = fmaf(tap[j][k], reaches(j, past) ? window[j][k] : 0.f, v[k]);
  }
}

#ifdef Y_T

// causal_conv: y [B T C] from x [B T C], taps w [C J] and bias [C]. tail [B J-1 C] holds the tokens
// before the first; null means zeros. Grid: channels, runs of `run` tokens (a multiple of UNROLL),
// rows of the batch.
extern "C" __global__ void __launch_bounds__(128)
causal_conv(const X_T *x, const float *w, const float *bias, const float *tail, const int *starts, Y_T *y,
            int tokens, int channels, int run, int x_stride, int y_stride) {
  int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (c >= channels) return;
  int t0 = blockIdx.y * run, end = min(t0 + run, tokens);
  int64_t row = (int64_t)blockIdx.z * tokens;

  float tap[J][V], b[V], window[PAST + UNROLL][V];
  load_taps(w, bias, c, tap, b);
#pragma unroll
  for (int p = 0; p < PAST; p++) {
    int t = t0 - PAST + p;
    if (t >= 0) load_vector<V>(x + (row + t) * x_stride + c, window[p]);
    else if (tail) load_vector<V>(tail + ((int64_t)blockIdx.z * PAST + PAST + t) * channels + c, window[p]);
    else clear_channels(window[p]);
  }
  // The next tokens are prefetched while these are convolved.
  Channels<X_T> next[UNROLL];
  auto fetch_tokens = [&](int t) {
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      next[i] = {};
      if (t + i < end) next[i] = *(const Channels<X_T> *)(x + (row + t + i) * x_stride + c);
    }
  };
  fetch_tokens(t0);
  for (int t = t0; t < end; t += UNROLL) {
#pragma unroll
    for (int i = 0; i < UNROLL; i++) load_vector<V>(next[i].x, window[PAST + i]);
    fetch_tokens(t + UNROLL);
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      float v[V];
      convolve(window + i, past_of(starts + row, t + i, t + i < end), tap, b, v);
#pragma unroll
      for (int k = 0; k < V; k++) v[k] *= conv_sigmoid(v[k]);
      if (t + i < end) store_vector<V>(y + (row + t + i) * y_stride + c, v);
    }
#pragma unroll
    for (int p = 0; p < PAST; p++)
#pragma unroll
      for (int k = 0; k < V; k++) window[p][k] = window[p + UNROLL][k];
  }
}

// causal_conv_advance updates tail [B J-1 C] to the last tokens of itself followed by x [B T C]. A
// thread handles one channel of one row.
extern "C" __global__ void causal_conv_advance(const X_T *x, float *tail, int tokens, int channels, int x_stride) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  float *own = tail + (int64_t)blockIdx.y * PAST * channels + c;
  for (int p = 0; p < PAST; p++) {
    int from = p + tokens;
    own[(int64_t)p * channels] = from < PAST ? own[(int64_t)from * channels]
                                             : load(x + ((int64_t)blockIdx.y * tokens + from - PAST) * x_stride + c);
  }
}

// causal_conv_step does both for one token of each row, as in decoding: a thread handles one
// channel of one row. V is 1.
extern "C" __global__ void __launch_bounds__(128)
causal_conv_step(const X_T *x, const float *w, const float *bias, float *tail, Y_T *y, int channels, int x_stride, int y_stride) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  let_next_begin();
  float tap[J][V], b[V], window[J][V], v[V];
  if (c < channels) load_taps(w, bias, c, tap, b);
  wait_for_inputs();
  if (c >= channels) return;
  float *own = tail + (int64_t)blockIdx.y * PAST * channels + c;
#pragma unroll
  for (int p = 0; p < PAST; p++) window[p][0] = own[(int64_t)p * channels];
  window[PAST][0] = load(x + (int64_t)blockIdx.y * x_stride + c);
  convolve(window, PAST, tap, b, v);
  store(y + (int64_t)blockIdx.y * y_stride + c, v[0] * conv_sigmoid(v[0]));
#pragma unroll
  for (int p = 0; p < PAST; p++) own[(int64_t)p * channels] = window[p + 1][0];
}

#endif

#ifdef DX_T

// causal_conv_backward: dx [B T C], and the run's partial sums of dw and dbias, parts
// [rows*runs][J+1][C], the bias last. The gradient g of the pre-activation is also needed for J-1
// tokens after the run, which belong to the next run's sums.
extern "C" __global__ void __launch_bounds__(128)
causal_conv_backward(const X_T *x, const float *w, const float *bias, const DY_T *dy, const int *starts, DX_T *dx, float *parts,
                     int tokens, int channels, int run, int x_stride, int dy_stride, int dx_stride) {
  int c = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (c >= channels) return;
  int t0 = blockIdx.y * run, end = min(t0 + run, tokens);
  int64_t row = (int64_t)blockIdx.z * tokens;

  // xs[PAST + i] is x of token t+i, gs[PAST + i] its g, and pasts[PAST + i] how far it reaches
  // back: dx of token t+i-PAST is a convolution of gs[i .. i+PAST] with the taps reversed.
  float tap[J][V], b[V], xs[PAST + UNROLL][V], gs[PAST + UNROLL][V], dw[J][V], db[V];
  int pasts[PAST + UNROLL];
  load_taps(w, bias, c, tap, b);
  clear_channels(db);
#pragma unroll
  for (int j = 0; j < J; j++) clear_channels(dw[j]);
#pragma unroll
  for (int p = 0; p < PAST; p++) {
    int t = t0 - PAST + p;
    clear_channels(gs[p]);
    pasts[p] = PAST;
    if (t >= 0) load_vector<V>(x + (row + t) * x_stride + c, xs[p]);
    else clear_channels(xs[p]);
  }
  // The next tokens are prefetched while the current ones are processed.
  int last = min(end + PAST, tokens);
  Channels<X_T> next_x[UNROLL];
  Channels<DY_T> next_dy[UNROLL];
  auto fetch_tokens = [&](int t) {
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      next_x[i] = {}, next_dy[i] = {};
      if (t + i < last) {
        next_x[i] = *(const Channels<X_T> *)(x + (row + t + i) * x_stride + c);
        next_dy[i] = *(const Channels<DY_T> *)(dy + (row + t + i) * dy_stride + c);
      }
    }
  };
  fetch_tokens(t0);
  for (int t = t0; t < end + PAST; t += UNROLL) {
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      load_vector<V>(next_x[i].x, xs[PAST + i]);
      load_vector<V>(next_dy[i].x, gs[PAST + i]);
      pasts[PAST + i] = past_of(starts + row, t + i, t + i < last);
    }
    fetch_tokens(t + UNROLL);
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      float v[V], d[V];
      convolve(xs + i, pasts[PAST + i], tap, b, v);
      bool own = t + i < end;
#pragma unroll
      for (int k = 0; k < V; k++) {
        float s = conv_sigmoid(v[k]);
        float g = gs[PAST + i][k] * (s + v[k] * s * (1.f - s));
        gs[PAST + i][k] = g;
        if (own) {
          db[k] += g;
#pragma unroll
          for (int j = 0; j < J; j++) dw[j][k] = fmaf(g, reaches(j, pasts[PAST + i]) ? xs[i + j][k] : 0.f, dw[j][k]);
        }
      }
#pragma unroll
      for (int k = 0; k < V; k++) {
        d[k] = 0.f;
#pragma unroll
        for (int j = 0; j < J; j++)
          d[k] = fmaf(tap[j][k], reaches(j, pasts[i + PAST - j]) ? gs[i + PAST - j][k] : 0.f, d[k]);
      }
      int at = t + i - PAST;
      if (at >= t0 && at < end) store_vector<V>(dx + (row + at) * dx_stride + c, d);
    }
#pragma unroll
    for (int p = 0; p < PAST; p++)
#pragma unroll
      for (int k = 0; k < V; k++) xs[p][k] = xs[p + UNROLL][k], gs[p][k] = gs[p + UNROLL][k];
#pragma unroll
    for (int p = 0; p < PAST; p++) pasts[p] = pasts[p + UNROLL];
  }
  float *part = parts + ((int64_t)blockIdx.z * gridDim.y + blockIdx.y) * (J + 1) * channels + c;
#pragma unroll
  for (int j = 0; j < J; j++) store_vector<V>(part + (int64_t)j * channels, dw[j]);
  store_vector<V>(part + (int64_t)J * channels, db);
}

// causal_conv_sum adds the parts [n][J+1][C] to dw [C J] and dbias [C]. A block handles 32 columns
// of (J+1)*C; each of its 8 warps adds every eighth part, then the first warp adds their sums.
extern "C" __global__ void __launch_bounds__(256)
causal_conv_sum(const float *parts, float *dw, float *dbias, int n, int channels) {
  __shared__ float shared[8][WARP];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, columns = (J + 1) * channels;
  int column = blockIdx.x * WARP + lane;
  float sum = 0.f;
  if (column < columns) {
#pragma unroll 4
    for (int i = warp; i < n; i += 8) sum += parts[(int64_t)i * columns + column];
  }
  shared[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  for (int k = 1; k < 8; k++) sum += shared[k][lane];
  int j = column / channels, c = column % channels;
  if (j < J) dw[c * J + j] = sum;
  else dbias[c] = sum;
}

#endif
