//go:build !amd64

package simd

var scanTable = [...]scanKernels{Portable: scanPortable}
