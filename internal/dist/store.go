package dist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// share gives what rank 0 has to all processes of a run: rank 0 listens at t.Master and
// answers each of the others once. token is the same in all of them and in no other run;
// processes that disagree are told so. It takes as long as ctx allows.
func share(ctx context.Context, t Topology, token string, value []byte) ([]byte, error) {
	if t.Single() {
		return value, nil
	}
	if t.Master == "" {
		return nil, fmt.Errorf("%s: nothing says where process 0 listens: set SAMBATRAIN_MASTER=host:port, the same in all processes", t.Source)
	}
	if t.Rank == 0 {
		return value, serve(ctx, t, token, value)
	}
	return ask(ctx, t, token, len(value))
}

const greeting = "sambatrain"

// serve answers every other process. Strangers, and processes of other runs, are
// answered with an error and don't count.
func serve(ctx context.Context, t Topology, token string, value []byte) error {
	_, port, err := net.SplitHostPort(t.Master)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", port))
	if err != nil {
		return fmt.Errorf("process 0 can't listen at %s: %w; set SAMBATRAIN_MASTER to a free port of its host", t.Master, err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	answered := map[int]bool{}
	for len(answered) < t.Size-1 {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return fmt.Errorf("only %d of %d processes came to %s in time: %w", len(answered)+1, t.Size, t.Master, ctx.Err())
		}
		if err != nil {
			return err
		}
		if rank, err := answer(c, t, token, value, answered); err == nil {
			answered[rank] = true
		}
	}
	return nil
}

// patience is how long one connection may take.
const patience = 10 * time.Second

func answer(c net.Conn, t Topology, token string, value []byte, answered map[int]bool) (rank int, err error) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadString('\n')
	if err != nil {
		return 0, err
	}
	refuse := func(format string, args ...any) (int, error) {
		err := fmt.Errorf(format, args...)
		_, _ = fmt.Fprintf(c, "no %v\n", err)
		return 0, err
	}
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != greeting {
		return refuse("this is process 0 of a sambatrain run")
	}
	rank, err = strconv.Atoi(words[2])
	switch {
	case words[1] != token || words[3] != strconv.Itoa(t.Size):
		return refuse("process 0 belongs to another run, or has another recipe, version or number of processes")
	case err != nil || rank < 1 || rank >= t.Size:
		return refuse("there is no process %s among %d", words[2], t.Size)
	case answered[rank]:
		return refuse("there is a process %d already", rank)
	}
	_, err = c.Write(append([]byte("yes "), value...))
	return rank, err
}

// ask tries until process 0 listens.
func ask(ctx context.Context, t Topology, token string, size int) ([]byte, error) {
	for {
		value, err := askOnce(ctx, t, token, size)
		var refused *refusal
		if err == nil || errors.As(err, &refused) {
			return value, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("process 0 was not reached at %s in time: %w", t.Master, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// refusal is what process 0 answers to a process that it does not know.
type refusal struct{ text string }

func (r *refusal) Error() string { return "process 0 answers: " + r.text }

func askOnce(ctx context.Context, t Topology, token string, size int) ([]byte, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", t.Master)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "%s %s %d %d\n", greeting, token, t.Rank, t.Size); err != nil {
		return nil, err
	}
	all, err := io.ReadAll(io.LimitReader(c, 4096))
	if err != nil {
		return nil, err
	}
	if text, ok := strings.CutPrefix(string(all), "no "); ok {
		return nil, &refusal{strings.TrimSpace(text)}
	}
	value, ok := strings.CutPrefix(string(all), "yes ")
	if !ok || len(value) != size {
		return nil, fmt.Errorf("%s answers with %d bytes that make no sense", t.Master, len(all))
	}
	return []byte(value), nil
}
