// Turning rotates by the angles of one position: channels i and i + D/2 turn by Base^(-2i/D)
// radians per token.
struct Turning {
  float cosines[D / 2], sines[D / 2];

  // Angles are double: at position 1e6 a float angle is off by up to 0.03.
  __device__ __forceinline__ void find(double position, double log2_base) {
    for (int i = threadIdx.x; i < D / 2; i += THREADS) {
      double sin, cos;
      sincos(position * exp2(-(double)i / (D / 2) * log2_base), &sin, &cos);
      cosines[i] = (float)cos, sines[i] = (float)sin;
    }
  }
  // turn writes channels c to c + 7 of a head to lower, and the channels D/2 further to upper.
  __device__ __forceinline__ void turn(const bf16 *head, int c, bf16 *lower, bf16 *upper) const {
    float x1[8], x2[8], y1[8], y2[8];
    load8(head + c, x1), load8(head + D / 2 + c, x2);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      float cos = cosines[c + k], sin = sines[c + k];
      y1[k] = x1[k] * cos - x2[k] * sin;
      y2[k] = x2[k] * cos + x1[k] * sin;
    }
    store8(lower, y1), store8(upper, y2);
  }
};
