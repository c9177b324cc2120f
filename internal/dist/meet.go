package dist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// Meet connects the processes of a run at t.Master, where process 0 listens. token is the
// same in all of them and in no other run; processes that disagree are told so. A process
// that is not heard of for timeout is lost. The meeting takes as long as ctx allows.
func Meet(ctx context.Context, t Topology, token string, timeout time.Duration) (*Line, error) {
	if t.Single() {
		return nil, nil
	}
	if t.Master == "" {
		return nil, fmt.Errorf("%s: nothing says where process 0 listens: set SAMBATRAIN_MASTER=host:port, the same in all processes", t.Source)
	}
	if t.Rank > 0 {
		return ask(ctx, t, token, timeout, []string{t.Master})
	}
	_, port, err := net.SplitHostPort(t.Master)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", port))
	if err != nil {
		return nil, fmt.Errorf("process 0 can't listen at %s: %w; set SAMBATRAIN_MASTER to a free port of its host", t.Master, err)
	}
	return serve(ctx, t, token, timeout, l)
}

// MeetOver is Meet for processes that a library of numbers in the host's memory has
// connected already: process 0 listens at a free port, and tells the others where.
func MeetOver(ctx context.Context, c graph.Comm, t Topology, token string, timeout time.Duration) (*Line, error) {
	const room = 2048
	text := make([]float32, room)
	if c.Rank() > 0 {
		if err := c.Broadcast(graph.VectorOf(text), 0); err != nil {
			return nil, err
		}
		at := make([]byte, 0, room)
		for _, x := range text {
			if x > 0 {
				at = append(at, byte(x))
			}
		}
		return ask(ctx, t, token, timeout, candidates(string(at)))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":0")
	if err != nil {
		return nil, err
	}
	for i, b := range []byte(addresses(l, room)) {
		text[i] = float32(b)
	}
	if err := c.Broadcast(graph.VectorOf(text), 0); err != nil {
		l.Close()
		return nil, err
	}
	return serve(ctx, t, token, timeout, l)
}

// addresses are this host's name, and where others may reach a listener, with spaces
// between them, in at most room bytes.
func addresses(l net.Listener, room int) string {
	host, _ := os.Hostname()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	text := "host:" + host + " " + net.JoinHostPort("127.0.0.1", port)
	list, _ := net.InterfaceAddrs()
	for _, a := range list {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if more := " " + net.JoinHostPort(ip.String(), port); len(text)+len(more) <= room {
			text += more
		}
	}
	return text
}

// candidates are the addresses of process 0 to try here: the loopback one on its own host,
// the others elsewhere.
func candidates(text string) []string {
	host, _ := os.Hostname()
	list := strings.Fields(text)
	if len(list) < 2 {
		return nil
	}
	if list[0] == "host:"+host {
		return list[1:]
	}
	return list[2:]
}

const greeting = "sambatrain"

// patience is how long one connection may take.
const patience = 10 * time.Second

// serve waits for every other process. Strangers, and processes of other runs, are
// answered with an error and don't count.
func serve(ctx context.Context, t Topology, token string, timeout time.Duration, l net.Listener) (*Line, error) {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	line := newLine(t, timeout)
	met := make(chan struct{})
	defer close(met)
	go func() {
		select {
		case <-line.lost:
			l.Close()
		case <-met:
		}
	}()
	for len(line.peers) < t.Size-1 {
		c, err := l.Accept()
		if gone := line.Err(); gone != nil {
			line.Close()
			return nil, gone
		}
		if ctx.Err() != nil {
			line.Close()
			return nil, fmt.Errorf("only %d of %d processes came to %s in time: %w", len(line.peers)+1, t.Size, l.Addr(), ctx.Err())
		}
		if err != nil {
			line.Close()
			return nil, err
		}
		if err := line.answer(c, token); err != nil {
			c.Close()
		}
	}
	return line, nil
}

func (l *Line) answer(c net.Conn, token string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	words, err := readLine(r)
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		_, _ = fmt.Fprintf(c, "no %v\n", err)
		return err
	}
	if len(words) != 4 || words[0] != greeting {
		return refuse("this is process 0 of a sambatrain run")
	}
	rank, err := strconv.Atoi(words[2])
	switch {
	case words[1] != token || words[3] != strconv.Itoa(l.size):
		return refuse("process 0 belongs to another run, or has another recipe, version or number of processes")
	case err != nil || rank < 1 || rank >= l.size:
		return refuse("there is no process %s among %d", words[2], l.size)
	case l.peers[rank] != nil:
		return refuse("there is a process %d already", rank)
	}
	if _, err := fmt.Fprintln(c, "yes"); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	l.add(rank, c, r)
	return nil
}

// readLine reads a line of words from who may be a stranger.
func readLine(r *bufio.Reader) ([]string, error) {
	var line []byte
	for len(line) < 4096 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '\n' {
			return strings.Fields(string(line)), nil
		}
		line = append(line, b)
	}
	return nil, errors.New("a line without an end")
}

// ask tries process 0's addresses until it listens at one.
func ask(ctx context.Context, t Topology, token string, timeout time.Duration, at []string) (*Line, error) {
	err := error(nil)
	for {
		for _, address := range at {
			var line *Line
			var refused *refusal
			if line, err = askOnce(ctx, t, token, timeout, address); err == nil || errors.As(err, &refused) {
				return line, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("process 0 was not reached at %s in time: %w", strings.Join(at, ", "), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// refusal is what process 0 answers to a process that it does not know.
type refusal struct{ text string }

func (r *refusal) Error() string { return "process 0 answers: " + r.text }

func askOnce(ctx context.Context, t Topology, token string, timeout time.Duration, address string) (*Line, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Line, error) {
		c.Close()
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return fail(err)
	}
	if _, err := fmt.Fprintf(c, "%s %s %d %d\n", greeting, token, t.Rank, t.Size); err != nil {
		return fail(err)
	}
	r := bufio.NewReader(c)
	words, err := readLine(r)
	switch {
	case err != nil:
		return fail(err)
	case len(words) > 1 && words[0] == "no":
		return fail(&refusal{strings.Join(words[1:], " ")})
	case len(words) != 1 || words[0] != "yes":
		return fail(fmt.Errorf("%s answers with words that make no sense", address))
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	line := newLine(t, timeout)
	line.add(0, c, r)
	return line, nil
}
