package dist

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dist/disttest"
)

func TestMain(m *testing.M) {
	disttest.Main(m, map[string]func() error{"collectives": collectives, "spawned": spawnedProcess})
}

// TestMPI makes every call with 2 and 4 processes of Open MPI.
func TestMPI(t *testing.T) {
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { disttest.Run(t, n, "collectives") })
	}
}

// calls makes every call.
func calls(c graph.Comm) error {
	const piece = 5
	n, r := c.Size(), c.Rank()
	own := func() []float32 {
		x := make([]float32, n*piece)
		for i := range x {
			x[i] = float32(100*r + i)
		}
		return x
	}
	sum := func(i int) float32 { return float32(100*n*(n-1)/2 + n*i) }
	x := own()
	if err := c.AllReduce(graph.VectorOf(x), graph.VectorOf(x)); err != nil {
		return err
	}
	for i, v := range x {
		if v != sum(i) {
			return fmt.Errorf("all-reduce: element %d is %v, want %v", i, v, sum(i))
		}
	}
	x = own()
	apart := make([]float32, piece)
	for _, to := range []graph.Vector{graph.VectorOf(apart), graph.VectorOf(x).Part(r*piece, piece)} {
		if err := c.ReduceScatter(graph.VectorOf(x), to); err != nil {
			return err
		}
	}
	for i := range piece {
		if at := r*piece + i; x[at] != sum(at) || apart[i] != sum(at) {
			return fmt.Errorf("reduce-scatter: element %d is %v in place and %v elsewhere, want %v", at, x[at], apart[i], sum(at))
		}
	}
	x = own()
	gathered := make([]float32, len(x))
	for _, to := range []graph.Vector{graph.VectorOf(gathered), graph.VectorOf(x)} {
		if err := c.AllGather(graph.VectorOf(x).Part(r*piece, piece), to); err != nil {
			return err
		}
	}
	for i, v := range x {
		if want := float32(100*(i/piece) + i); v != want || gathered[i] != want {
			return fmt.Errorf("all-gather: element %d is %v in place and %v elsewhere, want %v", i, v, gathered[i], want)
		}
	}
	// Calls that only move bits also accept other types.
	halves := graph.Vector{Address: graph.VectorOf(x).Address, Elements: 2 * n, DType: graph.BFloat16}
	if err := c.AllGather(halves.Part(2*r, 2), halves); err != nil {
		return err
	}
	x = own()
	if err := c.Broadcast(graph.VectorOf(x), n-1); err != nil {
		return err
	}
	for i, v := range x {
		if want := float32(100*(n-1) + i); v != want {
			return fmt.Errorf("broadcast: element %d is %v, want %v", i, v, want)
		}
	}
	odd := graph.VectorOf(x[1:])
	if c.ReduceScatter(odd, graph.VectorOf(apart)) == nil || c.AllGather(graph.VectorOf(apart), odd) == nil || c.Broadcast(odd, n) == nil || c.AllReduce(halves, halves) == nil {
		return fmt.Errorf("pieces of different lengths, a root outside, or a sum of bfloat16s are accepted")
	}
	return nil
}

// collectives checks the communicator from one process of several.
func collectives() error {
	top, err := Detect(NoFlags(), os.LookupEnv, 0)
	if err != nil {
		return err
	}
	c, err := NewMPI()
	if err != nil {
		return err
	}
	if c.Rank() != top.Rank || c.Size() != top.Size || top.Size < 2 {
		return fmt.Errorf("rank %d of %d; the launcher says %v", c.Rank(), c.Size(), top)
	}
	// The same with calls that count no more than a few elements.
	for _, most := range []int{mpiMost, 4, 1} {
		c.(*mpi).most = most
		if err := calls(c); err != nil {
			return fmt.Errorf("%d words a call: %w", most, err)
		}
	}
	n, r := c.Size(), c.Rank()
	line, err := MeetOver(context.Background(), c, top, "test", time.Minute)
	if err != nil {
		return err
	}
	for _, p := range line.peers {
		if at := p.conn.RemoteAddr().(*net.TCPAddr); !at.IP.IsLoopback() || !p.conn.LocalAddr().(*net.TCPAddr).IP.IsLoopback() {
			return fmt.Errorf("processes of one host meet at %v", at)
		}
	}
	all, err := line.Gather([]byte{byte(r)})
	if err != nil || r == 0 && (len(all) != n || all[n-1][0] != byte(n-1)) {
		return fmt.Errorf("gathered %v, %w", all, err)
	}
	err = c.Close()
	line.Close()
	return err
}
