package dist

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// mpi is Open MPI. Its handles are the addresses of variables of the library.
type mpi struct {
	lib        *dylib.Library
	rank, size int
	scratch    []float32 // what ReduceScatter receives into

	initThread, finalize, commRank, commSize, setErrorHandler, errorString uintptr
	allReduce, reduceScatterBlock, allGather, broadcast                    uintptr
	world, float, sum, errorsReturn                                        uintptr
}

const (
	mpiInPlace = 1
	// mpiSerialized: any thread may call, one at a time.
	mpiSerialized = 2
	// mpiMost is the most elements of one call, which counts in 32 bits.
	mpiMost = 1 << 30
)

var openMPILibrary = sync.OnceValues(func() (*mpi, error) {
	lib, err := dylib.Open("libmpi.so.40")
	if err != nil {
		return nil, fmt.Errorf("Open MPI: %w", err)
	}
	m := &mpi{lib: lib}
	err = lib.Symbols(map[*uintptr]string{
		&m.initThread: "MPI_Init_thread", &m.finalize: "MPI_Finalize",
		&m.commRank: "MPI_Comm_rank", &m.commSize: "MPI_Comm_size",
		&m.setErrorHandler: "MPI_Comm_set_errhandler", &m.errorString: "MPI_Error_string",
		&m.allReduce: "MPI_Allreduce", &m.reduceScatterBlock: "MPI_Reduce_scatter_block",
		&m.allGather: "MPI_Allgather", &m.broadcast: "MPI_Bcast",
		&m.world: "ompi_mpi_comm_world", &m.float: "ompi_mpi_float", &m.sum: "ompi_mpi_op_sum",
		&m.errorsReturn: "ompi_mpi_errors_return",
	})
	return m, err
})

// NewMPI joins the processes that mpirun or srun started. It can be called once a
// process.
func NewMPI() (graph.Comm, error) {
	m, err := openMPILibrary()
	if err != nil {
		return nil, err
	}
	var provided, rank, size int32
	if err := m.call("MPI_Init_thread", m.initThread, 0, 0, mpiSerialized, uintptr(unsafe.Pointer(&provided))); err != nil {
		return nil, err
	}
	if provided < mpiSerialized {
		return nil, fmt.Errorf("Open MPI: %s serves one thread only; Go needs a build with thread support", m.lib.Path)
	}
	if err := m.call("MPI_Comm_set_errhandler", m.setErrorHandler, m.world, m.errorsReturn); err != nil {
		return nil, err
	}
	if err := m.call("MPI_Comm_rank", m.commRank, m.world, uintptr(unsafe.Pointer(&rank))); err != nil {
		return nil, err
	}
	if err := m.call("MPI_Comm_size", m.commSize, m.world, uintptr(unsafe.Pointer(&size))); err != nil {
		return nil, err
	}
	m.rank, m.size = int(rank), int(size)
	return m, nil
}

//go:uintptrescapes
func (m *mpi) call(name string, f uintptr, args ...uintptr) error {
	r, _, _ := purego.SyscallN(f, args...)
	if int32(r) == 0 {
		return nil
	}
	var text [256]byte
	var n int32
	purego.SyscallN(m.errorString, uintptr(uint32(r)), uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&n)))
	return fmt.Errorf("Open MPI: %s: %s", name, text[:max(n, 0)])
}

func (m *mpi) Rank() int { return m.rank }

func (m *mpi) Size() int { return m.size }

// inParts makes a call of x that counts in 32 bits.
func inParts(x graph.Vector, call func(x graph.Vector) error) error {
	for from := 0; from < x.Elements; from += mpiMost {
		if err := call(x.Part(from, min(mpiMost, x.Elements-from))); err != nil {
			return err
		}
	}
	runtime.KeepAlive(x)
	return nil
}

func (m *mpi) AllReduce(x graph.Vector) error {
	return inParts(x, func(x graph.Vector) error {
		return m.call("MPI_Allreduce", m.allReduce, mpiInPlace, uintptr(x.Address), uintptr(x.Elements), m.float, m.sum, m.world)
	})
}

func (m *mpi) ReduceScatter(x graph.Vector) error {
	n, err := pieceOf(x, m.size)
	if err != nil || n == 0 {
		return err
	}
	if n > mpiMost {
		return fmt.Errorf("dist: a piece of %d elements is more than Open MPI counts", n)
	}
	if len(m.scratch) < n {
		m.scratch = make([]float32, n)
	}
	err = m.call("MPI_Reduce_scatter_block", m.reduceScatterBlock, uintptr(x.Address), uintptr(unsafe.Pointer(&m.scratch[0])), uintptr(n), m.float, m.sum, m.world)
	copy(unsafe.Slice((*float32)(x.Part(m.rank*n, n).Address), n), m.scratch[:n])
	runtime.KeepAlive(x)
	return err
}

func (m *mpi) AllGather(x graph.Vector) error {
	n, err := pieceOf(x, m.size)
	if err != nil || n == 0 {
		return err
	}
	if n > mpiMost {
		return fmt.Errorf("dist: a piece of %d elements is more than Open MPI counts", n)
	}
	err = m.call("MPI_Allgather", m.allGather, mpiInPlace, uintptr(n), m.float, uintptr(x.Address), uintptr(n), m.float, m.world)
	runtime.KeepAlive(x)
	return err
}

func (m *mpi) Broadcast(x graph.Vector, root int) error {
	if err := checkRoot(root, m.size); err != nil {
		return err
	}
	return inParts(x, func(x graph.Vector) error {
		return m.call("MPI_Bcast", m.broadcast, uintptr(x.Address), uintptr(x.Elements), m.float, uintptr(root), m.world)
	})
}

func (m *mpi) Close() error { return m.call("MPI_Finalize", m.finalize) }
