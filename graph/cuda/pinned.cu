// Transfers between the GPU and pinned host memory: in a chain of kernels, another kernel takes a
// few microseconds less than a copy.

// take_inputs copies words from the host, from the buffer whose turn it is, and counts the runs. It
// has a single thread block.
extern "C" __global__ void __launch_bounds__(256) take_inputs(const int *from, int *to, int words, int *runs) {
  int run = *runs;
  for (int i = threadIdx.x; i < words; i += blockDim.x) {
    int even = from[i], odd = from[words + i]; // loads both, so that neither load waits for the count
    to[i] = run % 2 == 0 ? even : odd;
  }
  __syncthreads();
  if (threadIdx.x == 0) *runs = run + 1;
}

// give_ints writes n integers to the host, to the buffer whose turn it is. It has a single thread
// block.
extern "C" __global__ void __launch_bounds__(256) give_ints(const int *from, int *to, int n, const int *runs) {
  begin_early();
  to += (*runs - 1) % 2 * n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) to[i] = from[i];
}

// give_result writes a tensor of rows x cols to the host, densely, as float. Each thread writes
// WIDTH elements.
extern "C" __global__ void __launch_bounds__(256) give_result(const X_T *from, float *to, int rows, int cols, int64_t stride) {
  begin_early();
  int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * WIDTH;
  if (i >= (int64_t)rows * cols) return;
  float x[WIDTH];
  load_vector<WIDTH>(from + i / cols * stride + i % cols, x);
  store_vector<WIDTH>(to + i, x);
}
