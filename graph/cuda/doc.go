// Package cuda runs plans on an NVIDIA GPU. The driver, the run-time compiler and
// cublasLt are opened when the program runs, so that one binary serves machines
// with and without a GPU. Kernels come from the Specs as source and launches; a
// program's launches are captured in one CUDA graph. It knows no op.
package cuda
