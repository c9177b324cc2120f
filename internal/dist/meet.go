package dist

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// Meet connects the processes of a run at t.Master, where process 0 listens. token is the same in
// all of them and in no other run; processes with a different one get an error. A process that is
// not heard from for timeout is lost. The meeting takes as long as ctx allows.
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
	host, port, err := net.SplitHostPort(t.Master)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(ownAddress(ctx, host), port))
	if err != nil {
		return nil, fmt.Errorf("process 0 can't listen at %s: %w; set SAMBATRAIN_MASTER to a free port of its host", t.Master, err)
	}
	return serve(ctx, t, token, timeout, l)
}

// ownAddress returns the address of this host that a name or an address stands for, or "" (all
// addresses) if that can't be determined: the others may know this host by an address that it
// doesn't have itself, because of address translation, and a host may know its own name as a
// loopback address.
func ownAddress(ctx context.Context, host string) string {
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return host
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return ""
	}
	local := localAddresses()
	// In the order in which clients will find one: IPv4 first.
	slices.SortStableFunc(list, func(a, b netip.Addr) int { return a.Unmap().BitLen() - b.Unmap().BitLen() })
	for _, ip := range list {
		if slices.Contains(local, ip.Unmap()) {
			return ip.Unmap().String()
		}
	}
	return ""
}

// localAddresses returns this host's addresses at which others may reach it.
func localAddresses() []netip.Addr {
	var list []netip.Addr
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr(); err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			list = append(list, ip)
		}
	}
	return list
}

// MeetOver is Meet for processes that are already connected by a library for numbers in host
// memory: process 0 listens on a free port, and tells the others where, along with a secret that
// makes the token unique to them. Processes on one host meet at its loopback address.
func MeetOver(ctx context.Context, c graph.Comm, t Topology, token string, timeout time.Duration) (*Line, error) {
	const room = 2048
	at := ":0"
	alone, err := oneHost(c, room)
	if err != nil {
		return nil, err
	}
	if alone {
		at = "127.0.0.1:0"
	}
	if c.Rank() > 0 {
		text, err := broadcast(c, "", room)
		if err != nil {
			return nil, err
		}
		secret, where, _ := strings.Cut(text, " ")
		return ask(ctx, t, secret+token, timeout, candidates(where))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	secret := rand.Text()
	if _, err := broadcast(c, secret+" "+addresses(l, room-len(secret)-1), room); err != nil {
		l.Close()
		return nil, err
	}
	return serve(ctx, t, secret+token, timeout, l)
}

// broadcast gives all processes process 0's text of at most room bytes.
func broadcast(c graph.Comm, text string, room int) (string, error) {
	x := make([]float32, room)
	for i, b := range []byte(text) {
		x[i] = float32(b)
	}
	if err := c.Broadcast(graph.VectorOf(x), 0); err != nil {
		return "", err
	}
	all := make([]byte, 0, room)
	for _, v := range x {
		if v > 0 {
			all = append(all, byte(v))
		}
	}
	return string(all), nil
}

// oneHost reports whether all processes are on one host, judging by its name, if that is its own.
func oneHost(c graph.Comm, room int) (bool, error) {
	host, err := os.Hostname()
	known := err == nil && len(host) <= room && host != "localhost"
	if !known {
		host = ""
	}
	first, err := broadcast(c, host, room)
	if err != nil {
		return false, err
	}
	elsewhere := make([]float32, 1)
	if !known || first != host {
		elsewhere[0] = 1
	}
	err = c.AllReduce(graph.VectorOf(elsewhere), graph.VectorOf(elsewhere))
	return elsewhere[0] == 0, err
}

// addresses returns this host's name, and the addresses at which others may reach a listener,
// separated by spaces, in at most room bytes.
func addresses(l net.Listener, room int) string {
	host, _ := os.Hostname()
	listens, port, _ := net.SplitHostPort(l.Addr().String())
	text := "host:" + host + " " + net.JoinHostPort("127.0.0.1", port)
	if ip, err := netip.ParseAddr(listens); err == nil && ip.IsLoopback() {
		return text
	}
	for _, ip := range localAddresses() {
		if more := " " + net.JoinHostPort(ip.String(), port); len(text)+len(more) <= room {
			text += more
		}
	}
	return text
}

// candidates returns the addresses of process 0 to try here: the loopback address on its own host,
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

// serve waits for all other processes. Strangers, and processes of other runs, get an error and
// don't count; a silent client doesn't keep anybody waiting.
func serve(ctx context.Context, t Topology, token string, timeout time.Duration, l net.Listener) (*Line, error) {
	line := newLine(t, timeout)
	met := make(chan struct{})
	defer close(met)
	defer l.Close()
	greeted, failed := make(chan guest), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			go greet(c, greeted, met)
		}
	}()
	for len(line.peers) < t.Size-1 {
		var err error
		select {
		case g := <-greeted:
			if line.admit(g, token) != nil {
				g.conn.Close()
			}
			continue
		case <-line.lost:
			err = line.Err()
		case <-ctx.Done():
			err = fmt.Errorf("only %d of %d processes came to %s in time: %w", len(line.peers)+1, t.Size, l.Addr(), ctx.Err())
		case err = <-failed:
		}
		line.Close()
		return nil, err
	}
	return line, nil
}

// guest is a client that has connected and sent a line.
type guest struct {
	conn  net.Conn
	rest  *bufio.Reader
	words []string
}

// greet receives what a new client says, and passes it on until all have met.
func greet(c net.Conn, greeted chan<- guest, met <-chan struct{}) {
	g := guest{conn: c, rest: bufio.NewReader(c)}
	err := c.SetDeadline(time.Now().Add(patience))
	if err == nil {
		g.words, err = readLine(g.rest)
	}
	if err == nil {
		select {
		case greeted <- g:
			return
		case <-met:
		}
	}
	c.Close()
}

// admit adds a guest that belongs to the run, and tells others the reason why not.
func (l *Line) admit(g guest, token string) error {
	refuse := func(format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		_, _ = fmt.Fprintf(g.conn, "no %v\n", err)
		return err
	}
	if len(g.words) != 4 || g.words[0] != greeting {
		return refuse("this is process 0 of a sambatrain run")
	}
	rank, err := strconv.Atoi(g.words[2])
	switch {
	case subtle.ConstantTimeCompare([]byte(g.words[1]), []byte(token)) == 0 || g.words[3] != strconv.Itoa(l.size):
		return refuse("process 0 belongs to another run, or has another recipe, version, secret or number of processes")
	case err != nil || rank < 1 || rank >= l.size:
		return refuse("there is no process %s among %d", g.words[2], l.size)
	case l.peers[rank] != nil:
		return refuse("there is a process %d already", rank)
	}
	if _, err := fmt.Fprintln(g.conn, "yes"); err != nil {
		return err
	}
	if err := g.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	l.add(rank, g.conn, g.rest)
	return nil
}

// readLine reads a line of words from a possible stranger.
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

// ask tries process 0's addresses until it listens at one of them.
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

// refusal is process 0's answer to a process that it does not know.
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
		return fail(fmt.Errorf("%s sent an invalid reply", address))
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	line := newLine(t, timeout)
	line.add(0, c, r)
	return line, nil
}
