package dist

import (
	"context"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dylib"
)

// nccl is NVIDIA's library of collectives. Its calls are put on a GPU's stream and
// return before they are done.
type nccl struct {
	lib        *dylib.Library
	rank, size int
	comm       uintptr
	stream     uintptr

	version, errorString, uniqueID, initRank, destroy uintptr
	allReduce, reduceScatter, allGather, broadcast    uintptr
}

const (
	ncclFloat32 = 7
	ncclSum     = 0
	ncclIDBytes = 128
)

// NewNCCL joins the processes of a run, each with the GPU whose context is current for
// the calling thread. token is the same in all of them and in no other run.
func NewNCCL(ctx context.Context, t Topology, token string) (graph.StreamComm, error) {
	lib, err := dylib.Open("libnccl.so.2")
	if err != nil {
		return nil, fmt.Errorf("NCCL: %w", err)
	}
	n := &nccl{lib: lib, rank: t.Rank, size: t.Size}
	err = lib.Symbols(map[*uintptr]string{
		&n.version: "ncclGetVersion", &n.errorString: "ncclGetErrorString", &n.uniqueID: "ncclGetUniqueId",
		&n.initRank: "ncclCommInitRank", &n.destroy: "ncclCommDestroy",
		&n.allReduce: "ncclAllReduce", &n.reduceScatter: "ncclReduceScatter", &n.allGather: "ncclAllGather", &n.broadcast: "ncclBroadcast",
	})
	if err != nil {
		return nil, err
	}
	id := &[ncclIDBytes / 8]uintptr{}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(id)), ncclIDBytes)
	if t.Rank == 0 {
		if err := n.call("ncclGetUniqueId", n.uniqueID, uintptr(unsafe.Pointer(id))); err != nil {
			return nil, err
		}
	}
	shared, err := share(ctx, t, token, bytes)
	if err != nil {
		return nil, fmt.Errorf("NCCL: %w", err)
	}
	copy(bytes, shared)
	return n, n.init(id)
}

// init passes the id by value: on amd64 that is 16 words on the stack, behind the six
// that go in registers, and on arm64 its address.
func (n *nccl) init(id *[ncclIDBytes / 8]uintptr) error {
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

func (n *nccl) AllReduce(x graph.Vector) error {
	return n.call("ncclAllReduce", n.allReduce, uintptr(x.Address), uintptr(x.Address), uintptr(x.Elements), ncclFloat32, ncclSum, n.comm, n.stream)
}

func (n *nccl) ReduceScatter(x graph.Vector) error {
	each, err := pieceOf(x, n.size)
	if err != nil {
		return err
	}
	own := x.Part(n.rank*each, each)
	return n.call("ncclReduceScatter", n.reduceScatter, uintptr(x.Address), uintptr(own.Address), uintptr(each), ncclFloat32, ncclSum, n.comm, n.stream)
}

func (n *nccl) AllGather(x graph.Vector) error {
	each, err := pieceOf(x, n.size)
	if err != nil {
		return err
	}
	own := x.Part(n.rank*each, each)
	return n.call("ncclAllGather", n.allGather, uintptr(own.Address), uintptr(x.Address), uintptr(each), ncclFloat32, n.comm, n.stream)
}

func (n *nccl) Broadcast(x graph.Vector, root int) error {
	if err := checkRoot(root, n.size); err != nil {
		return err
	}
	return n.call("ncclBroadcast", n.broadcast, uintptr(x.Address), uintptr(x.Address), uintptr(x.Elements), ncclFloat32, uintptr(root), n.comm, n.stream)
}

func (n *nccl) Close() error {
	comm := n.comm
	n.comm = 0
	if comm == 0 {
		return nil
	}
	return n.call("ncclCommDestroy", n.destroy, comm)
}
