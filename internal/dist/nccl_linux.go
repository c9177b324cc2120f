package dist

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// nccl is NVIDIA's library of collectives. Its calls are enqueued on a GPU's stream and return
// before they are done.
type nccl struct {
	lib        *dylib.Library
	rank, size int
	comm       uintptr
	stream     uintptr

	version, errorString, uniqueID, initRank, destroy uintptr
	allReduce, reduceScatter, allGather, broadcast    uintptr
}

const ncclSum = 0

// ncclTypes are the values of ncclDataType_t.
var ncclTypes = map[graph.DType]uintptr{graph.Int32: 2, graph.Float32: 7, graph.BFloat16: 9}

// NewNCCL joins the processes that a line connects, each with the GPU whose context is current for
// the calling thread.
func NewNCCL(t Topology, line *Line) (graph.StreamComm, error) {
	n, err := openNCCL("libnccl.so.2")
	if err != nil {
		return nil, err
	}
	n.rank, n.size = t.Rank, t.Size
	id := &uniqueID{}
	if t.Rank == 0 {
		if id, err = n.newID(); err != nil {
			return nil, err
		}
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(id)), unsafe.Sizeof(*id))
	shared, err := line.Share(bytes)
	if err != nil {
		return nil, fmt.Errorf("NCCL: %w", err)
	}
	if len(shared) != len(bytes) {
		return nil, fmt.Errorf("NCCL: process 0 sent an id of %d bytes", len(shared))
	}
	copy(bytes, shared)
	return n, n.init(id)
}

// openNCCL finds the library and its functions.
func openNCCL(name string) (*nccl, error) {
	lib, err := dylib.Open(name)
	if err != nil {
		return nil, fmt.Errorf("NCCL: %w", err)
	}
	n := &nccl{lib: lib}
	return n, lib.Symbols(map[*uintptr]string{
		&n.version: "ncclGetVersion", &n.errorString: "ncclGetErrorString", &n.uniqueID: "ncclGetUniqueId",
		&n.initRank: "ncclCommInitRank", &n.destroy: "ncclCommDestroy",
		&n.allReduce: "ncclAllReduce", &n.reduceScatter: "ncclReduceScatter", &n.allGather: "ncclAllGather", &n.broadcast: "ncclBroadcast",
	})
}

// uniqueID is an ncclUniqueId, 128 bytes.
type uniqueID [16]uintptr

func (n *nccl) newID() (*uniqueID, error) {
	id := &uniqueID{}
	return id, n.call("ncclGetUniqueId", n.uniqueID, uintptr(unsafe.Pointer(id)))
}

// init passes the id by value: on amd64 that is 16 words on the stack, after the six that go in
// registers, and on arm64 its address.
func (n *nccl) init(id *uniqueID) error {
	const name = "ncclCommInitRank"
	if runtime.GOARCH == "amd64" {
		return n.call(name, n.initRank, uintptr(unsafe.Pointer(&n.comm)), uintptr(n.size), uintptr(n.rank), 0, 0, 0,
			id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15])
	}
	return n.call(name, n.initRank, uintptr(unsafe.Pointer(&n.comm)), uintptr(n.size), uintptr(unsafe.Pointer(id)), uintptr(n.rank))
}

//go:uintptrescapes
func (n *nccl) call(name string, f uintptr, args ...uintptr) error {
	r, _, _ := purego.SyscallN(f, args...)
	if int32(r) == 0 {
		return nil
	}
	text, _, _ := purego.SyscallN(n.errorString, r)
	return fmt.Errorf("NCCL: %s: %s", name, cText(text))
}

// cText is a C string.
func cText(p uintptr) string {
	var b []byte
	for at := *(*unsafe.Pointer)(unsafe.Pointer(&p)); at != nil && *(*byte)(at) != 0; at = unsafe.Add(at, 1) {
		b = append(b, *(*byte)(at))
	}
	return string(b)
}

func (n *nccl) Rank() int { return n.rank }

func (n *nccl) Size() int { return n.size }

func (n *nccl) OnStream(stream uintptr) { n.stream = stream }

func (n *nccl) AllReduce(from, to graph.Vector) error {
	return n.call("ncclAllReduce", n.allReduce, uintptr(from.Address), uintptr(to.Address), uintptr(from.Elements), ncclTypes[from.DType], ncclSum, n.comm, n.stream)
}

func (n *nccl) ReduceScatter(from, to graph.Vector) error {
	if err := checkPiece(from, to, n.size); err != nil {
		return err
	}
	return n.call("ncclReduceScatter", n.reduceScatter, uintptr(from.Address), uintptr(to.Address), uintptr(to.Elements), ncclTypes[from.DType], ncclSum, n.comm, n.stream)
}

func (n *nccl) AllGather(from, to graph.Vector) error {
	if err := checkPiece(to, from, n.size); err != nil {
		return err
	}
	return n.call("ncclAllGather", n.allGather, uintptr(from.Address), uintptr(to.Address), uintptr(from.Elements), ncclTypes[from.DType], n.comm, n.stream)
}

func (n *nccl) Broadcast(x graph.Vector, root int) error {
	if err := checkRoot(root, n.size); err != nil {
		return err
	}
	return n.call("ncclBroadcast", n.broadcast, uintptr(x.Address), uintptr(x.Address), uintptr(x.Elements), ncclTypes[x.DType], uintptr(root), n.comm, n.stream)
}

func (n *nccl) Close() error {
	comm := n.comm
	n.comm = 0
	if comm == 0 {
		return nil
	}
	return n.call("ncclCommDestroy", n.destroy, comm)
}
