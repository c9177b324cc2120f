package graph

import (
	"embed"
	"fmt"
)

// CUDA says how an op runs on an NVIDIA GPU, as data: graph/cuda compiles the
// source, and launches. An op's folder holds the source beside its Go file.
type CUDA struct {
	// Source is CUDA C++ without includes; graph/cuda puts its common.cuh before it.
	// It is compiled once for each set of Launch.Defines.
	Source string
	// Launches lists the kernels and matrix products of one call, in order.
	Launches func(c *CUDACall) ([]Launch, error)
	// Workspace is the bytes of device scratch that a call wants. Optional.
	Workspace func(d Dims) int
}

// CUDAFile is name.cu of an op's folder as a part of its source: messages of the compiler
// name the file, and its lines.
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
	// Host, where its Address is not 0, may take the place of Out[0], which is a result that no
	// other call reads: float32 in the host's memory, rows one behind the other. What is stored there
	// passes over the bus, which wants 128 bytes of a row at once, and time. Launch.ToHost says that it is.
	Host DeviceBuffer
	// Workspace is the address of what CUDA.Workspace asked for.
	Workspace uint64
	// Counter is the address of a uint32 that is the call's own in all runs. It begins as 0, and
	// each run leaves it as 0.
	Counter uint64
	// Multiprocessors is the GPU's number of them.
	Multiprocessors int
	// Capability is the GPU's compute capability: 90 for 9.0.
	Capability int
}

// DeviceBuffer is a tensor in a GPU's memory. Element (i, j) of its Rows x Cols view
// is (i*Stride+j) elements of DType behind Address. Behind each row are Pad elements that
// belong to no tensor: anyone may write them, and what they hold is arbitrary.
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

// Launch is one kernel launch, or what one of the pointers at its end says.
type Launch struct {
	// Kernel is the function's name in the source.
	Kernel string
	// Defines are compile-time constants and types: {"D": "128", "X": "bf16"}.
	Defines     map[string]string
	Grid, Block [3]int
	// Shared is the bytes of dynamic shared memory.
	Shared int
	// Early lets the kernel begin while those before it are at work, on GPUs that can: it
	// calls common.cuh's begin_early, or wait_for_inputs before it touches what they do.
	Early bool
	// ToHost says that the kernel stores to CUDACall.Host.
	ToHost bool
	// Args are the kernel's parameters: uint64 (an address or size_t), int32, float32 or
	// TensorMap.
	Args []any

	// Product and Collective are no kernels.
	Product    *Product
	Collective *Collective
}

// TensorMap lets a kernel of compute capability 9.0 copy boxes of a matrix in bfloat16 to shared
// memory: a parameter of 128 bytes, CUtensorMap. A box is Box rows of 64 elements, 128 bytes
// with the 128-byte swizzle; what lies outside of the matrix comes as zeros. Address and Stride
// are multiples of 16 bytes.
type TensorMap struct {
	Matrix DeviceBuffer
	Box    int
}

// Collective is a call that all processes of a run make. A run of one copies From to To.
type Collective struct {
	Kind     CollectiveKind
	From, To DeviceBuffer
}

// RowTiles is the grid of a kernel whose blocks take 8 elements a thread of one row:
// tiles of them make a row of cols.
func RowTiles(rows, cols int) (blocks, threads, tiles int) {
	const share = 8
	threads = min(256, (cols+32*share-1)/(32*share)*32)
	tiles = (cols + threads*share - 1) / (threads * share)
	return rows * tiles, threads, tiles
}

// Product is the row-major C[M N] = op(A)[M K] op(B)[K N] + Beta From, with float32
// accumulation. From is a matrix of C's type, C itself where it is 0. LDA, LDB and LDC are the distances between rows, in elements. With
// TransA, A is stored as [K M], and with TransB, B as [N K]. PadA and PadB are DeviceBuffer.Pad
// of A and B.
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

// CType is the name that common.cuh has for an element type.
func (t DType) CType() string {
	switch t {
	case BFloat16:
		return "bf16"
	case Int32:
		return "int"
	}
	return "float"
}
