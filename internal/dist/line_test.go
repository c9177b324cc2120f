package dist

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// freeAddress returns a loopback address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// meet connects size processes within this one.
func meet(t *testing.T, size int, timeout time.Duration) []*Line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	top := Topology{Size: size, Master: freeAddress(t), Source: "test"}
	lines := make([]*Line, size)
	var wait sync.WaitGroup
	for rank := range size {
		wait.Go(func() {
			place := top
			if place.Rank = rank; rank == 0 {
				time.Sleep(20 * time.Millisecond) // the others arrive before it listens
			}
			var err error
			if lines[rank], err = Meet(ctx, place, "run", timeout); err != nil {
				t.Errorf("process %d: %v", rank, err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, l := range lines {
			l.Close()
		}
	})
	return lines
}

// inAll calls f for each process at the same time.
func inAll(lines []*Line, f func(rank int, l *Line)) {
	var wait sync.WaitGroup
	for rank, l := range lines {
		wait.Go(func() { f(rank, l) })
	}
	wait.Wait()
}

func TestLineMessages(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte{0, 'x', '\n', 255}, 32)
	lines := meet(t, 4, 1500*time.Millisecond)
	time.Sleep(2 * time.Second) // silence is not a loss: there are heartbeats
	inAll(lines, func(rank int, l *Line) {
		value := make([]byte, len(secret))
		if rank == 0 {
			value = secret
		}
		if got, err := l.Share(value); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("process %d shares %q, %v", rank, got, err)
		}
		for round := range 3 {
			all, err := l.Gather(fmt.Appendf(nil, "%d of %d", round, rank))
			if err != nil || (all != nil) != (rank == 0) {
				t.Errorf("process %d gathers %q, %v", rank, all, err)
			}
			for i, text := range all {
				if want := fmt.Sprintf("%d of %d", round, i); string(text) != want {
					t.Errorf("gathered %q, want %q", text, want)
				}
			}
		}
	})
	inAll(lines, func(rank int, l *Line) {
		l.Close()
		if err := l.Err(); err != nil {
			t.Errorf("process %d: %v after an end in agreement", rank, err)
		}
	})
}

// TestLineLoss: all others learn which process ended, hung or failed.
func TestLineLoss(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	die := func(l *Line) {
		l.mu.Lock()
		l.closed = true // the dead don't tell anybody about the connections that end with them
		l.mu.Unlock()
		close(l.done)
		for _, p := range l.peers {
			p.conn.Close()
		}
	}
	hang := func(l *Line) {
		for _, p := range l.peers {
			p.writing.Lock() // no more heartbeats are sent
		}
	}
	for _, c := range []struct {
		name string
		rank int
		do   func(*Line)
		want error
	}{
		{"dies", 2, die, &Lost{2, "it ended without a word"}},
		{"first dies", 0, die, &Lost{0, "it ended without a word"}},
		{"hangs", 1, hang, &Lost{1, "nothing was heard of it for 1s"}},
		{"first hangs", 0, hang, &Lost{0, "nothing was heard of it for 1s"}},
		{"gives up", 2, func(l *Line) { l.GiveUp("it is late") }, &Lost{-1, "it is late"}},
		{"first gives up", 0, func(l *Line) { l.GiveUp("it is late") }, &Lost{-1, "it is late"}},
		{"fails", 3, func(l *Line) { l.Fail("no space", false) }, &Failed{3, "no space", false}},
		{"first is stopped", 0, func(l *Line) { l.Fail("stopped", true) }, &Failed{0, "stopped", true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lines := meet(t, 4, timeout)
			c.do(lines[c.rank])
			for rank, l := range lines {
				if rank == c.rank {
					continue
				}
				select {
				case <-l.Lost():
				case <-time.After(5 * time.Second):
					t.Fatalf("process %d does not notice", rank)
				}
				if err := l.Err(); fmt.Sprintf("%T %v", err, err) != fmt.Sprintf("%T %v", c.want, c.want) {
					t.Errorf("process %d says %v, want %v", rank, err, c.want)
				}
				if _, err := l.Share(nil); rank > 0 && err == nil {
					t.Errorf("process %d still shares", rank)
				}
			}
			for _, p := range lines[c.rank].peers {
				if !p.writing.TryLock() {
					p.conn.Close()
				}
				p.writing.Unlock()
			}
		})
	}
}

// TestMeetRefuses: a stranger, a process of another run and one too many get an error, and don't
// keep the run from starting.
func TestMeetRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	top := Topology{Size: 3, Master: freeAddress(t), Source: "test"}
	done := make(chan error)
	go func() {
		l, err := Meet(ctx, top, "run", time.Minute)
		done <- err
		l.Close()
	}()
	process := func(rank, size int, token, want string) {
		t.Helper()
		place := top
		place.Rank, place.Size = rank, size
		l, err := Meet(ctx, place, token, time.Minute)
		t.Cleanup(l.Close)
		if (want == "") != (err == nil) || want != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("process %d of %d with token %s: %v, want %q", rank, size, token, err, want)
		}
	}
	process(1, 3, "run", "")
	process(1, 3, "run", "there is a process 1 already")
	process(2, 3, "another", "belongs to another run")
	process(2, 4, "run", "number of processes")
	for greeting, want := range map[string]string{
		"GET / HTTP/1.1\r\n":    "no this is process 0 of a sambatrain run",
		"sambatrain run 0 3\n":  "no there is no process 0 among 3",
		"sambatrain run 3 3\n":  "no there is no process 3 among 3",
		"sambatrain run -1 3\n": "no there is no process -1 among 3",
		"sambatrain run x 3\n":  "no there is no process x among 3",
	} {
		c, err := net.Dial("tcp", top.Master)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(greeting)); err != nil {
			t.Fatal(err)
		}
		if answer, _ := bufio.NewReader(c).ReadString('\n'); strings.TrimSpace(answer) != want {
			t.Errorf("%q is answered by %q, want %q", greeting, answer, want)
		}
		c.Close()
	}
	process(2, 3, "run", "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMeetTimesOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	top := Topology{Size: 2, Master: freeAddress(t), Source: "test"}
	if _, err := Meet(ctx, top, "run", time.Minute); err == nil || !strings.Contains(err.Error(), "only 1 of 2 processes came") {
		t.Errorf("process 0 alone: %v", err)
	}
	top.Rank, top.Master = 1, freeAddress(t)
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Meet(ctx, top, "run", time.Minute); err == nil || !strings.Contains(err.Error(), "was not reached") {
		t.Errorf("process 1 alone: %v", err)
	}
	top.Master = ""
	if _, err := Meet(ctx, top, "run", time.Minute); err == nil || !strings.Contains(err.Error(), "set SAMBATRAIN_MASTER=host:port") {
		t.Errorf("no address: %v", err)
	}
}

// TestMeetLoses: a process that dies before all have arrived ends the meeting.
func TestMeetLoses(t *testing.T) {
	top := Topology{Size: 3, Master: freeAddress(t), Source: "test"}
	first := make(chan error)
	go func() {
		_, err := Meet(t.Context(), top, "run", time.Minute)
		first <- err
	}()
	second := top
	second.Rank = 1
	l, err := Meet(t.Context(), second, "run", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	l.peers[0].conn.Close()
	var lost *Lost
	if err := <-first; !errors.As(err, &lost) || lost.Rank != 1 {
		t.Errorf("%v, want the loss of process 1", err)
	}
}

// TestSilentStrangers: a client that connects and says nothing doesn't keep anybody waiting.
func TestSilentStrangers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	top := Topology{Size: 2, Master: freeAddress(t), Source: "test"}
	met := make(chan error)
	go func() {
		l, err := Meet(ctx, top, "run", time.Minute)
		met <- err
		l.Close()
	}()
	for silent := 0; silent < 3 && ctx.Err() == nil; {
		if c, err := net.Dial("tcp", top.Master); err == nil {
			defer c.Close()
			silent++
		}
	}
	second := top
	second.Rank = 1
	l, err := Meet(ctx, second, "run", time.Minute)
	if err != nil {
		t.Error(err)
	}
	defer l.Close()
	if err := <-met; err != nil {
		t.Error(err)
	}
}

// TestOwnAddress: process 0 listens on the named address, or on all of them if it can't tell.
func TestOwnAddress(t *testing.T) {
	want := map[string]string{
		"127.0.0.1": "127.0.0.1", "::1": "::1", "localhost": "localhost",
		"203.0.113.7": "", "no-such-host.invalid": "", // reserved for documentation, and nonexistent
	}
	for _, ip := range localAddresses() {
		want[ip.String()] = ip.String()
	}
	for host, want := range want {
		if got := ownAddress(t.Context(), host); got != want {
			t.Errorf("%s: listens at %q, want %q", host, got, want)
		}
	}
	list := localAddresses()
	if len(list) == 0 {
		t.Skip("no address but the loopback one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	top := Topology{Size: 2, Master: freeAddress(t), Source: "test"}
	ended := make(chan error)
	go func() {
		_, err := Meet(ctx, top, "run", time.Minute)
		ended <- err
	}()
	_, port, _ := net.SplitHostPort(top.Master)
	time.Sleep(50 * time.Millisecond)
	if c, err := net.Dial("tcp", net.JoinHostPort(list[0].String(), port)); err == nil {
		c.Close()
		t.Errorf("a run at %s is reached at %v", top.Master, list[0])
	}
	if c, err := net.Dial("tcp", top.Master); err != nil {
		t.Errorf("it is not reached at %s: %v", top.Master, err)
	} else {
		c.Close()
	}
	<-ended
}

func TestCandidates(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := addresses(l, 2048)
	here := candidates(text)
	if len(here) == 0 || here[0] != l.Addr().String() {
		t.Errorf("here: %q", here)
	}
	_, others, _ := strings.Cut(text, " ")
	for _, at := range candidates("host:elsewhere " + others) {
		if strings.HasPrefix(at, "127.") {
			t.Errorf("elsewhere: %q", at)
		}
	}
	if strings.Count(text, " ") != 1 {
		t.Errorf("%q names more than the loopback address that is listened at", text)
	}
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	if text := addresses(everywhere, 2048); strings.Count(text, " ") != 1+len(localAddresses()) {
		t.Errorf("%q, want this host's addresses %v", text, localAddresses())
	}
	if short := addresses(everywhere, 40); strings.Count(short, " ") > 2 {
		t.Errorf("%q is longer than asked", short)
	}
}
