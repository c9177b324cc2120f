package dist

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Line connects the processes of a run, in addition to the library that moves their numbers: each
// of them with process 0. It detects a process that dies or hangs, which that library would wait
// for forever, and carries small messages. A nil Line is that of a run of one process.
type Line struct {
	rank, size int
	timeout    time.Duration

	peers map[int]*peer // by rank; processes other than 0 only have process 0
	lost  chan struct{} // closed with the first loss
	done  chan struct{} // closed by Close

	mu     sync.Mutex
	cause  error // why lost is closed
	closed bool
}

// peer is the connection to one process.
type peer struct {
	rank     int
	conn     net.Conn
	writing  sync.Mutex
	messages chan []byte // values and shares, in order
}

// Lost is the error of a run in which a process died or hung. Rank is negative if it is unknown
// which one.
type Lost struct {
	Rank int
	Why  string
}

func (e *Lost) Error() string {
	if e.Rank < 0 {
		return e.Why + "; go on from the last checkpoint with resume"
	}
	return fmt.Sprintf("process %d is lost: %s; go on from the last checkpoint with resume", e.Rank, e.Why)
}

// Failed is the error of a run in which another process failed and said so.
type Failed struct {
	Rank int
	Why  string
	// Stopped: a signal ended it before there was anything to save.
	Stopped bool
}

func (e *Failed) Error() string { return fmt.Sprintf("process %d failed: %s", e.Rank, e.Why) }

// The kinds of frames: a kind, four bytes of length, and the content.
const (
	frameBeat byte = iota
	frameMessage
	frameFailed // a notice
	frameLost   // a notice
	frameBye    // the process ends in agreement with the others

	maxFrame = 256 << 20
)

// notice is a message about a process that is gone.
type notice struct {
	Rank    int    `json:"rank"`
	Why     string `json:"why"`
	Stopped bool   `json:"stopped,omitempty"`
}

func newLine(t Topology, timeout time.Duration) *Line {
	return &Line{rank: t.Rank, size: t.Size, timeout: timeout, peers: map[int]*peer{}, lost: make(chan struct{}), done: make(chan struct{})}
}

// beat is the interval of heartbeats: short enough that a few may be late.
func (l *Line) beat() time.Duration { return min(l.timeout/5, 5*time.Second) }

// add starts the communication with a process.
func (l *Line) add(rank int, c net.Conn, r io.Reader) {
	p := &peer{rank: rank, conn: c, messages: make(chan []byte, 16)}
	l.mu.Lock()
	l.peers[rank] = p
	l.mu.Unlock()
	go l.listen(p, hearing{c, r, l.timeout})
	go l.keepBeating(p)
}

func (l *Line) keepBeating(p *peer) {
	tick := time.NewTicker(l.beat())
	defer tick.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-l.lost:
			return
		case <-tick.C:
			_ = l.send(p, frameBeat, nil) // whoever does not hear it will detect that itself
		}
	}
}

func (l *Line) send(p *peer, kind byte, content []byte) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return err
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(content))), content...)
	_, err := p.conn.Write(frame)
	return err
}

// listen receives what a process sends until it is done or lost.
func (l *Line) listen(p *peer, r io.Reader) {
	for {
		kind, content, err := receive(r)
		var n notice
		if err == nil && (kind == frameFailed || kind == frameLost) {
			err = json.Unmarshal(content, &n)
		}
		switch {
		case err != nil:
			l.lose(&Lost{p.rank, why(err, l.timeout)})
			return
		case kind == frameMessage:
			select {
			case p.messages <- content:
			case <-l.done:
				return
			}
		case kind == frameFailed:
			l.lose(&Failed{n.Rank, n.Why, n.Stopped})
			return
		case kind == frameLost:
			l.lose(&Lost{n.Rank, n.Why})
			return
		case kind == frameBye:
			return
		}
	}
}

func receive(r io.Reader) (kind byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("it sends %d bytes at a time, which is invalid", n)
	}
	content = make([]byte, n)
	_, err = io.ReadFull(r, content)
	return head[0], content, err
}

// why says what the end of a connection means.
func why(err error, timeout time.Duration) string {
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return fmt.Sprintf("nothing was heard of it for %v", timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		return "it ended without a word"
	}
	return err.Error()
}

// GiveUp tells all processes that the run has come to a halt, which Lost and Err then report.
func (l *Line) GiveUp(why string) {
	cause := &Lost{-1, why}
	if l.rank > 0 {
		l.tell([]*peer{l.peers[0]}, frameLost, notice{Rank: cause.Rank, Why: cause.Why})
	}
	l.lose(cause)
}

// lose records the first loss, which process 0 passes on to all others.
func (l *Line) lose(cause error) {
	l.mu.Lock()
	if l.closed || l.cause != nil {
		l.mu.Unlock()
		return
	}
	l.cause = cause
	peers := make([]*peer, 0, len(l.peers))
	for _, p := range l.peers {
		peers = append(peers, p)
	}
	l.mu.Unlock()
	if l.rank == 0 {
		kind, n := frameLost, notice{}
		switch e := cause.(type) {
		case *Lost:
			n = notice{Rank: e.Rank, Why: e.Why}
		case *Failed:
			kind, n = frameFailed, notice{e.Rank, e.Why, e.Stopped}
		}
		l.tell(peers, kind, n)
	}
	close(l.lost)
}

// tell sends a notice to all at once: a process that hangs must not keep it from the others.
func (l *Line) tell(peers []*peer, kind byte, n notice) {
	content, err := json.Marshal(n)
	if err != nil {
		return
	}
	var all sync.WaitGroup
	sent := make(chan struct{})
	for _, p := range peers {
		if p.rank != n.Rank {
			all.Go(func() { _ = l.send(p, kind, content) })
		}
	}
	go func() { all.Wait(); close(sent) }()
	select {
	case <-sent:
	case <-time.After(time.Second):
	}
}

// Lost is closed when another process has died, hung or failed. Err then says which.
func (l *Line) Lost() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.lost
}

// Err returns a *Lost or a *Failed once Lost is closed.
func (l *Line) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Fail tells the others that this process has failed and ends, or that a signal ended it before
// there was anything to save.
func (l *Line) Fail(reason string, stopped bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	peers := make([]*peer, 0, len(l.peers))
	for _, p := range l.peers {
		peers = append(peers, p)
	}
	closed := l.closed
	l.mu.Unlock()
	if !closed {
		l.tell(peers, frameFailed, notice{l.rank, reason, stopped})
	}
	l.Close()
}

// Close closes the line by agreement: the others do not take it for a death.
func (l *Line) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.mu.Unlock()
	close(l.done)
	for _, p := range l.peers {
		_ = l.send(p, frameBye, nil) // it may be gone already
		_ = p.conn.Close()
	}
}

// Share gives all processes the value of process 0. All must call it.
func (l *Line) Share(value []byte) ([]byte, error) {
	if l == nil {
		return value, nil
	}
	if l.rank != 0 {
		return l.next(l.peers[0])
	}
	for _, p := range l.peers {
		if err := l.send(p, frameMessage, value); err != nil {
			return nil, l.explain(err)
		}
	}
	return value, nil
}

// Gather collects the values of all processes in process 0, in rank order; the others get nil as
// soon as theirs is sent. All must call it the same number of times.
func (l *Line) Gather(value []byte) ([][]byte, error) {
	if l == nil {
		return [][]byte{value}, nil
	}
	if l.rank != 0 {
		return nil, l.explain(l.send(l.peers[0], frameMessage, value))
	}
	all := [][]byte{value}
	for rank := 1; rank < l.size; rank++ {
		v, err := l.next(l.peers[rank])
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// next returns a process's next message.
func (l *Line) next(p *peer) ([]byte, error) {
	select {
	case m := <-p.messages:
		return m, nil
	case <-l.lost:
		return nil, l.Err()
	case <-l.done:
		return nil, errors.New("dist: the line to the other processes is closed")
	}
}

// explain prefers news of a loss to the error that it caused.
func (l *Line) explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-l.lost:
		return l.Err()
	case <-time.After(time.Second):
		return err
	}
}
