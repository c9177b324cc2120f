// Rotary position embedding. A block handles some tokens: it computes their cosines and sines once,
// and rotates these tokens' heads in some of the batch's rows. y may be x: a thread reads both
// halves of what it writes first.

extern __shared__ float angles[];

// w_i is base^(-i/half) radians per token; sign -1 rotates backwards. pos [rows], unless it is
// null, is the position of each row's token 0; block_rows is 1 in that case.
extern "C" __global__ void __launch_bounds__(256)
rope(const X_T *x, Y_T *y, const int *pos, uint64_t base_bits, float sign, int rows, int tokens, int heads, int half,
     int block_tokens, int block_rows, int64_t stride_x, int64_t stride_y) {
  int t0 = blockIdx.x * block_tokens, row0 = blockIdx.y * block_rows;
  int n = min(block_tokens, tokens - t0), last = min(row0 + block_rows, rows);
  let_next_begin();

  // Angles are double: at position 1e6 a float angle is off by up to 0.03.
  double base = __longlong_as_double((int64_t)base_bits);
  double first = (pos ? pos[row0] : 0) + t0;
  float *cosines = angles, *sines = angles + block_tokens * half;
  for (int i = threadIdx.x; i < n * half; i += blockDim.x) {
    double sin, cos;
    sincos((first + i / half) * pow(base, -(double)(i % half) / half), &sin, &cos);
    cosines[i] = (float)cos, sines[i] = sign * (float)sin;
  }
  wait_for_inputs(); // positions are an input of the program, so that they can be read before
  __syncthreads();

  int head_vectors = half / WIDTH, token_vectors = heads * head_vectors;
  for (int row = row0; row < last; row++) {
    for (int i = threadIdx.x; i < n * token_vectors; i += blockDim.x) {
      int t = i / token_vectors, h = i % token_vectors / head_vectors, c = i % head_vectors * WIDTH;
      int64_t at = (int64_t)row * tokens + t0 + t;
      const X_T *from = x + at * stride_x + h * 2 * half + c;
      Y_T *to = y + at * stride_y + h * 2 * half + c;
      float x1[WIDTH], x2[WIDTH], y1[WIDTH], y2[WIDTH];
      load_vector<WIDTH>(from, x1), load_vector<WIDTH>(from + half, x2);
#pragma unroll
      for (int k = 0; k < WIDTH; k++) {
        float cos = cosines[t * half + c + k], sin = sines[t * half + c + k];
        y1[k] = x1[k] * cos - x2[k] * sin;
        y2[k] = x2[k] * cos + x1[k] * sin;
      }
      store_vector<WIDTH>(to, y1), store_vector<WIDTH>(to + half, y2);
    }
  }
}
