// zero_columns writes zeros to cols columns of rows that lie stride elements apart. A thread
// takes a row.
extern "C" __global__ void __launch_bounds__(256) zero_columns(bf16 *to, int64_t stride, int rows, int cols) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  for (int c = 0; c < cols; c++) store(to + row * stride + c, 0.f);
}
