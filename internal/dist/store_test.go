package dist

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// freeAddress is a loopback address that nothing listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestShare(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	secret := bytes.Repeat([]byte{0, 'x', '\n', 255}, 32)
	top := Topology{Size: 4, Master: freeAddress(t), Source: "test"}
	var wait sync.WaitGroup
	for rank := range top.Size {
		wait.Go(func() {
			place, value := top, make([]byte, len(secret))
			if place.Rank = rank; rank == 0 {
				time.Sleep(100 * time.Millisecond) // the others come before it listens
				copy(value, secret)
			}
			got, err := share(ctx, place, "run", value)
			if err != nil || !bytes.Equal(got, secret) {
				t.Errorf("process %d: %q, %v", rank, got, err)
			}
		})
	}
	wait.Wait()
}

// TestShareRefuses: a stranger, a process of another run and one too many are told so,
// and don't keep the run from starting.
func TestShareRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	top := Topology{Size: 3, Master: freeAddress(t), Source: "test"}
	done := make(chan error)
	go func() {
		_, err := share(ctx, top, "run", []byte("id"))
		done <- err
	}()
	process := func(rank, size int, token, want string) {
		t.Helper()
		place := top
		place.Rank, place.Size = rank, size
		value, err := share(ctx, place, token, make([]byte, 2))
		if want == "" && (err != nil || string(value) != "id") {
			t.Errorf("process %d: %q, %v", rank, value, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("process %d of %d with token %s: %v, want %q", rank, size, token, err, want)
		}
	}
	process(1, 3, "run", "")
	process(1, 3, "run", "there is a process 1 already")
	process(2, 3, "another", "belongs to another run")
	process(2, 4, "run", "number of processes")
	c, err := net.Dial("tcp", top.Master)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	process(2, 3, "run", "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShareTimesOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	top := Topology{Size: 2, Master: freeAddress(t), Source: "test"}
	if _, err := share(ctx, top, "run", []byte("id")); err == nil || !strings.Contains(err.Error(), "only 1 of 2 processes came") {
		t.Errorf("process 0 alone: %v", err)
	}
	top.Rank, top.Master = 1, freeAddress(t)
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := share(ctx, top, "run", []byte("id")); err == nil || !strings.Contains(err.Error(), "was not reached") {
		t.Errorf("process 1 alone: %v", err)
	}
	top.Master = ""
	if _, err := share(ctx, top, "run", nil); err == nil || !strings.Contains(err.Error(), "set SAMBATRAIN_MASTER=host:port") {
		t.Errorf("no address: %v", err)
	}
}
