//go:build !amd64

package simd

func kernelsOf(Level) *gemmKernels { return &gemmPortable }

func roundingKernelsOf(Level) *gemmKernels { return gemmRoundedPortable }
