package dist

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// mpi is Open MPI. Its handles are the addresses of variables in the library.
type mpi struct {
	lib        *dylib.Library
	rank, size int
	scratch    []float32 // the receive buffer of ReduceScatter
	most       int       // mpiMost; less in tests

	initThread, finalize, commRank, commSize, setErrorHandler, errorString uintptr
	allReduce, reduceScatterBlock, reduce, allGather, broadcast            uintptr
	world, float, sum, errorsReturn, libraryVersion                        uintptr
}

const (
	mpiInPlace = 1
	// mpiSerialized: any thread may call, one at a time.
	mpiSerialized = 2
	// mpiMost is the maximum number of elements in one call, which counts in 32 bits.
	mpiMost = 1 << 30
)

var openMPILibrary = sync.OnceValues(func() (*mpi, error) {
	lib, err := dylib.Open("libmpi.so.40")
	if err != nil {
		return nil, fmt.Errorf("Open MPI: %w", err)
	}
	m := &mpi{lib: lib, most: mpiMost}
	err = lib.Symbols(map[*uintptr]string{
		&m.initThread: "MPI_Init_thread", &m.finalize: "MPI_Finalize",
		&m.commRank: "MPI_Comm_rank", &m.commSize: "MPI_Comm_size",
		&m.setErrorHandler: "MPI_Comm_set_errhandler", &m.errorString: "MPI_Error_string",
		&m.allReduce: "MPI_Allreduce", &m.reduceScatterBlock: "MPI_Reduce_scatter_block", &m.reduce: "MPI_Reduce",
		&m.allGather: "MPI_Allgather", &m.broadcast: "MPI_Bcast",
		&m.world: "ompi_mpi_comm_world", &m.float: "ompi_mpi_float", &m.sum: "ompi_mpi_op_sum",
		&m.errorsReturn: "ompi_mpi_errors_return", &m.libraryVersion: "MPI_Get_library_version",
	})
	return m, err
})

// NewMPI joins the processes that mpirun or srun started. It can be called once per process.
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

// words returns the number of MPI_FLOATs in a vector, for calls that only move bits.
func words(x graph.Vector) int { return x.Elements * x.DType.Size() / 4 }

// inParts makes a call for each part [at, at+n) of `words` words: Open MPI counts in 32 bits.
func (m *mpi) inParts(words int, call func(at, n int) error) error {
	for at := 0; at < words; at += m.most {
		if err := call(at, min(m.most, words-at)); err != nil {
			return err
		}
	}
	return nil
}

func address(x graph.Vector, word int) uintptr { return uintptr(x.Address) + uintptr(4*word) }

// summable rejects types that Open MPI can't sum.
func summable(x graph.Vector) error {
	if x.DType != graph.Float32 {
		return fmt.Errorf("Open MPI: no sum of %v; set run.reduce_dtype to float32", x.DType)
	}
	return nil
}

func (m *mpi) AllReduce(from, to graph.Vector) error {
	if err := summable(from); err != nil {
		return err
	}
	err := m.inParts(from.Elements, func(at, n int) error {
		send := address(from, at)
		if from.Address == to.Address {
			send = mpiInPlace
		}
		return m.call("MPI_Allreduce", m.allReduce, send, address(to, at), uintptr(n), m.float, m.sum, m.world)
	})
	runtime.KeepAlive(from)
	runtime.KeepAlive(to)
	return err
}

func (m *mpi) ReduceScatter(from, to graph.Vector) error {
	if err := errors.Join(summable(from), checkPiece(from, to, m.size)); err != nil || to.Elements == 0 {
		return err
	}
	// Open MPI does not let a process receive into its send buffer.
	if n := min(to.Elements, m.most); len(m.scratch) < n {
		m.scratch = make([]float32, n)
	}
	if to.Elements > m.most {
		return m.reducePieces(from, to)
	}
	err := m.call("MPI_Reduce_scatter_block", m.reduceScatterBlock, uintptr(from.Address), uintptr(unsafe.Pointer(&m.scratch[0])), uintptr(to.Elements), m.float, m.sum, m.world)
	copy(unsafe.Slice((*float32)(to.Address), to.Elements), m.scratch)
	runtime.KeepAlive(from)
	return err
}

// reducePieces is ReduceScatter for pieces too large for one call to count.
func (m *mpi) reducePieces(from, to graph.Vector) error {
	own := unsafe.Slice((*float32)(to.Address), to.Elements)
	for root := range m.size {
		piece := from.Part(root*to.Elements, to.Elements)
		err := m.inParts(to.Elements, func(at, n int) error {
			err := m.call("MPI_Reduce", m.reduce, address(piece, at), uintptr(unsafe.Pointer(&m.scratch[0])), uintptr(n), m.float, m.sum, uintptr(root), m.world)
			if root == m.rank {
				copy(own[at:], m.scratch[:n])
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	runtime.KeepAlive(from)
	return nil
}

func (m *mpi) AllGather(from, to graph.Vector) error {
	if err := checkPiece(to, from, m.size); err != nil || from.Elements == 0 {
		return err
	}
	if words(from) > m.most {
		return m.broadcastPieces(from, to)
	}
	n := uintptr(words(from))
	send := uintptr(from.Address)
	if from.Address == to.Part(m.rank*from.Elements, from.Elements).Address {
		send = mpiInPlace
	}
	err := m.call("MPI_Allgather", m.allGather, send, n, m.float, uintptr(to.Address), n, m.float, m.world)
	runtime.KeepAlive(from)
	runtime.KeepAlive(to)
	return err
}

// broadcastPieces is AllGather for pieces too large for one call to count.
func (m *mpi) broadcastPieces(from, to graph.Vector) error {
	bytes := from.Elements * from.DType.Size()
	own := to.Part(m.rank*from.Elements, from.Elements)
	copy(unsafe.Slice((*byte)(own.Address), bytes), unsafe.Slice((*byte)(from.Address), bytes))
	for root := range m.size {
		if err := m.Broadcast(to.Part(root*from.Elements, from.Elements), root); err != nil {
			return err
		}
	}
	runtime.KeepAlive(from)
	return nil
}

func (m *mpi) Broadcast(x graph.Vector, root int) error {
	if err := checkRoot(root, m.size); err != nil {
		return err
	}
	err := m.inParts(words(x), func(at, n int) error {
		return m.call("MPI_Bcast", m.broadcast, address(x, at), uintptr(n), m.float, uintptr(root), m.world)
	})
	runtime.KeepAlive(x)
	return err
}

func (m *mpi) Close() error { return m.call("MPI_Finalize", m.finalize) }
