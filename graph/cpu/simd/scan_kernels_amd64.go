package simd

var scanTable = [...]scanKernels{Portable: scanPortable, AVX2: scanPortable, AVX512: scanPortable}
