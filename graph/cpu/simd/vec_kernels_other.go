//go:build !amd64

package simd

var vecTable = [...]vecKernels{Portable: vecPortable}
