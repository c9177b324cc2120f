//go:build !amd64

package simd

func kernelsOf(Level) *gemmKernels { return &gemmPortable }
