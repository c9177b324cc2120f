package simd

var vecTable = [...]vecKernels{Portable: vecPortable, AVX2: vecPortable, AVX512: vecPortable}
