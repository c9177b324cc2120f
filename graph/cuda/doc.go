// Package cuda runs plans on an NVIDIA GPU. The driver, the run-time compiler and cublasLt are
// loaded at run time, so that one binary serves machines with and without a GPU. Kernels come from
// the Specs as source and launches; a program's launches are captured in one CUDA graph. This
// package knows no op by name.
package cuda
