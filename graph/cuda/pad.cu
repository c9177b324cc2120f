// zero_columns zeroes cols columns of rows that are stride elements apart. One thread handles one
// row.
extern "C" __global__ void __launch_bounds__(256) zero_columns(bf16 *to, int64_t stride, int rows, int cols) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  for (int c = 0; c < cols; c++) store(to + row * stride + c, 0.f);
}
