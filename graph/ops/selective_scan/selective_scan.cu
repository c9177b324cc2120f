// One thread has one channel of one row of the batch, with its N states, and walks the
// tokens in order.
//
// Macros: N; CHUNK tokens between saved states; the types U_T, DT_T, B_T, C_T, Z_T, Y_T
// of the forward pass, and DY_T, DU_T, DDT_T, DB_T, DC_T, DZ_T of the backward pass;
// FAST where an operand is bf16.

#define THREADS 64

__device__ __forceinline__ float scan_sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

#ifdef Y_T

extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *bm, const C_T *cm,
               const float *d, const Z_T *z, float *saved, float *state, Y_T *y, int tokens, int channels,
               int u_stride, int dt_stride, int b_stride, int c_stride, int z_stride, int y_stride) {
  int c = blockIdx.x * THREADS + threadIdx.x;
  if (c >= channels) return;
  int64_t row = (int64_t)blockIdx.y * tokens;
  int chunks = (tokens + CHUNK - 1) / CHUNK;
  float a[N], h[N];
  for (int n = 0; n < N; n++) {
    a[n] = -expf(a_log[c * N + n]);
    h[n] = state ? state[((int64_t)blockIdx.y * N + n) * channels + c] : 0.f;
  }
  for (int t = 0; t < tokens; t++) {
    if (saved && t % CHUNK == 0)
      for (int n = 0; n < N; n++) saved[(((int64_t)blockIdx.y * chunks + t / CHUNK) * N + n) * channels + c] = h[n];
    float x = load(u + (row + t) * u_stride + c);
    float delta = softplus(load(dt + (row + t) * dt_stride + c) + dt_bias[c]);
    float s = d[c] * x;
    for (int n = 0; n < N; n++) {
      h[n] = expf(delta * a[n]) * h[n] + delta * x * load(bm + (row + t) * b_stride + n);
      s += load(cm + (row + t) * c_stride + n) * h[n];
    }
    if (z) {
      float gate = load(z + (row + t) * z_stride + c);
      s *= gate * scan_sigmoid(gate);
    }
    store(y + (row + t) * y_stride + c, s);
  }
  if (state)
    for (int n = 0; n < N; n++) state[((int64_t)blockIdx.y * N + n) * channels + c] = h[n];
}

#endif

#ifdef DU_T

// selective_scan_backward leaves each block's part of dBm and dCm in parts [slices]
// [B T][2 N], and each row's part of dA_log, dD and ddt_bias in rows [B][N+2][C].
extern "C" __global__ void __launch_bounds__(THREADS)
selective_scan_backward(const U_T *u, const DT_T *dt, const float *dt_bias, const float *a_log, const B_T *bm,
                        const C_T *cm, const float *d, const Z_T *z, const float *saved, const DY_T *dy, DU_T *du,
                        DDT_T *ddt, DZ_T *dz, float *parts, float *rows, int tokens, int channels, int u_stride,
                        int dt_stride, int b_stride, int c_stride, int z_stride, int dy_stride, int du_stride,
                        int ddt_stride, int dz_stride) {
  __shared__ float shared[33];
  int c = blockIdx.x * THREADS + threadIdx.x;
  bool valid = c < channels;
  int64_t row = (int64_t)blockIdx.y * tokens;
  int chunks = (tokens + CHUNK - 1) / CHUNK;
  float a[N], dh[N], da[N], h[CHUNK + 1][N], dd = 0.f, dbias = 0.f;
  for (int n = 0; n < N; n++) a[n] = valid ? -expf(a_log[c * N + n]) : 0.f, dh[n] = da[n] = 0.f;
  for (int k = chunks - 1; k >= 0; k--) {
    int steps = min(CHUNK, tokens - k * CHUNK);
    for (int n = 0; n < N; n++)
      h[0][n] = valid ? saved[(((int64_t)blockIdx.y * chunks + k) * N + n) * channels + c] : 0.f;
    for (int i = 0; i < steps; i++) {
      int64_t t = row + k * CHUNK + i;
      float x = valid ? load(u + t * u_stride + c) : 0.f;
      float delta = valid ? softplus(load(dt + t * dt_stride + c) + dt_bias[c]) : 0.f;
      for (int n = 0; n < N; n++) h[i + 1][n] = expf(delta * a[n]) * h[i][n] + delta * x * load(bm + t * b_stride + n);
    }
    for (int i = steps - 1; i >= 0; i--) {
      int64_t t = row + k * CHUNK + i;
      float x = 0.f, raw = 0.f, delta = 0.f, g = 0.f, gate = 0.f, s = 0.f, db = 0.f, w_a = 0.f;
      if (valid) {
        x = load(u + t * u_stride + c), raw = load(dt + t * dt_stride + c) + dt_bias[c], delta = softplus(raw);
        g = load(dy + t * dy_stride + c);
        s = d[c] * x;
        if (z) gate = load(z + t * z_stride + c);
      }
      float up = g;
      if (z) g *= gate * scan_sigmoid(gate);
      for (int n = 0; n < N; n++) {
        float b = load(bm + t * b_stride + n), cn = load(cm + t * c_stride + n);
        dh[n] += g * cn;
        s += cn * h[i + 1][n];
        float dcm = block_sum(g * h[i + 1][n], shared);
        float dbm = block_sum(dh[n] * delta * x, shared);
        if (threadIdx.x == 0) {
          float *part = parts + ((int64_t)blockIdx.x * gridDim.y * tokens + t) * 2 * N + n;
          part[0] = dbm, part[N] = dcm;
        }
        db += dh[n] * b;
        dh[n] *= expf(delta * a[n]);
        w_a += dh[n] * h[i][n] * a[n];
        da[n] += dh[n] * h[i][n] * delta;
      }
      if (valid) {
        dd += g * x;
        float back = (x * db + w_a) * scan_sigmoid(raw);
        dbias += back;
        if (z) {
          float q = scan_sigmoid(gate);
          store(dz + t * dz_stride + c, up * s * q * (1.f + gate * (1.f - q)));
        }
        store(du + t * du_stride + c, d[c] * g + delta * db);
        store(ddt + t * ddt_stride + c, back);
      }
    }
  }
  if (!valid) return;
  float *mine = rows + (int64_t)blockIdx.y * (N + 2) * channels + c;
  for (int n = 0; n < N; n++) mine[(int64_t)n * channels] = da[n] * a[n];
  mine[(int64_t)N * channels] = dd;
  mine[(int64_t)(N + 1) * channels] = dbias;
}

// selective_scan_sum_slices adds up parts [slices][B T][2 N] into dBm and dCm.
extern "C" __global__ void selective_scan_sum_slices(const float *parts, DB_T *db, DC_T *dc, int slices,
                                                     int rows, int db_stride, int dc_stride) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, size = (int64_t)rows * 2 * N;
  if (i >= size) return;
  float sum = 0.f;
  for (int s = 0; s < slices; s++) sum += parts[s * size + i];
  int64_t t = i / (2 * N);
  int n = i % (2 * N);
  if (n < N) store(db + t * db_stride + n, sum);
  else store(dc + t * dc_stride + n - N, sum);
}

// selective_scan_sum_rows adds up rows [B][N+2][C] into dA_log, dD and ddt_bias.
extern "C" __global__ void selective_scan_sum_rows(const float *rows, float *da_log, float *dd, float *ddt_bias,
                                                   int batch, int channels) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, size = (N + 2) * channels;
  if (i >= size) return;
  float sum = 0.f;
  for (int b = 0; b < batch; b++) sum += rows[(int64_t)b * size + i];
  int n = i / channels, c = i % channels;
  if (n < N) da_log[c * N + n] = sum;
  else if (n == N) dd[c] = sum;
  else ddt_bias[c] = sum;
}

#endif
