package graph

import (
	"embed"
	"fmt"
)

// CUDA describes how an op runs on an NVIDIA GPU, as data: graph/cuda compiles the source and
// launches the kernels. The source is in the op's folder.
type CUDA struct {
	// Source is CUDA C++ without includes; graph/cuda puts its common.cuh in front of it. It is
	// compiled once for each set of Launch.Defines.
	Source string
	// Launches lists the kernels and matrix products of one call, in order.
	Launches func(c *CUDACall) ([]Launch, error)
	// Workspace is the device scratch memory that a call needs, in bytes. Optional.
	Workspace func(d Dims) int
}

// CUDAFile is name.cu of an op's folder as part of its source, so that compiler messages have the
// file's name and line numbers.
func CUDAFile(files embed.FS, name string) string {
	text, err := files.ReadFile(name + ".cu")
	if err != nil {
		panic(err) // the op lists a file that its folder doesn't have
	}
	return fmt.Sprintf("#line 1 \"%s.cu\"\n%s", name, text)
}

// CUDACall is one op with its buffers on a GPU.
type CUDACall struct {
	Dims    Dims
	In, Out []DeviceBuffer
	// Host, if its Address is not 0, may be used instead of Out[0], which is then a result that no
	// other call reads: float32, contiguous rows, in host memory. Stores to it cross the PCIe bus,
	// which takes time, and needs 128 contiguous bytes of a row at once to be efficient.
	// Launch.ToHost says that a kernel uses it.
	Host DeviceBuffer
	// Workspace is the address of the memory requested by CUDA.Workspace.
	Workspace uint64
	// Counter is the address of a uint32 that belongs to this call in all runs. It is initially 0,
	// and each run must leave it at 0.
	Counter uint64
	// Multiprocessors is the GPU's number of SMs.
	Multiprocessors int
	// Capability is the GPU's compute capability: 90 for 9.0.
	Capability int
}

// DeviceBuffer is a tensor in GPU memory. Element (i, j) of its Rows x Cols view is i*Stride+j
// elements of DType after Address. After each row there are Pad elements that belong to no tensor:
// any op may write them, and their values are arbitrary.
type DeviceBuffer struct {
	Address            uint64
	DType              DType
	Rows, Cols, Stride int
	Pad                int
	// Fixed says that no kernel of a model's program writes to it.
	Fixed bool
}

// At is the address of element (row, col).
func (b DeviceBuffer) At(row, col int) uint64 {
	return b.Address + uint64((row*b.Stride+col)*b.DType.Size())
}

// Launch is one kernel launch, or the product or collective that one of its last two fields
// describes.
type Launch struct {
	// Kernel is the function's name in the source.
	Kernel string
	// Defines are compile-time constants and types: {"D": "128", "X": "bf16"}.
	Defines     map[string]string
	Grid, Block [3]int
	// Shared is the dynamic shared memory in bytes.
	Shared int
	// Early lets the kernel start while the preceding ones are still running (programmatic
	// dependent launch), on GPUs that support it. The kernel must call common.cuh's begin_early, or
	// wait_for_inputs before it accesses memory that they write or read.
	Early bool
	// ToHost says that the kernel stores to CUDACall.Host.
	ToHost bool
	// Args are the kernel's parameters: uint64 (an address or size_t), int32, float32 or TensorMap.
	Args []any

	// Product and Collective are not kernels.
	Product    *Product
	Collective *Collective
}

// TensorMap lets a kernel on compute capability 9.0 copy boxes of a bfloat16 matrix to shared
// memory by TMA. It is a kernel parameter of 128 bytes, a CUtensorMap. A box is Box rows of 64
// elements, 128 bytes, with the 128-byte swizzle; elements outside of the matrix are zero. Address
// and Stride must be multiples of 16 bytes.
type TensorMap struct {
	Matrix DeviceBuffer
	Box    int
}

// Collective is a call that all processes of a run make. A single process copies From to To.
type Collective struct {
	Kind     CollectiveKind
	From, To DeviceBuffer
}

// RowTiles is the grid of a kernel whose blocks handle 8 elements per thread of one row: a row of
// cols elements is divided into tiles blocks.
func RowTiles(rows, cols int) (blocks, threads, tiles int) {
	const share = 8
	threads = min(256, (cols+32*share-1)/(32*share)*32)
	tiles = (cols + threads*share - 1) / (threads * share)
	return rows * tiles, threads, tiles
}

// Product is the row-major C[M N] = op(A)[M K] op(B)[K N] + Beta From, with float32 accumulation.
// From is a matrix of C's type, and C itself if it is 0. LDA, LDB and LDC are the distances between
// rows, in elements. With TransA, A is stored as [K M], and with TransB, B as [N K]. PadA and PadB
// are DeviceBuffer.Pad of A and B.
type Product struct {
	M, N, K             int
	TransA, TransB      bool
	A, B, C             uint64
	LDA, LDB, LDC       int
	PadA, PadB          int
	TypeA, TypeB, TypeC DType
	Beta                float32
	From                uint64
	LDFrom              int
}

// CType is the name of an element type in common.cuh.
func (t DType) CType() string {
	switch t {
	case BFloat16:
		return "bf16"
	case Float24:
		return "float24"
	case Int32:
		return "int"
	}
	return "float"
}
