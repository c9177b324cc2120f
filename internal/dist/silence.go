package dist

import (
	"errors"
	"io"
	"net"
	"time"
)

// waits is the number of parts in which a peer's silence is measured. When this process or the
// whole machine stands still, as a virtual one may, only one part can pass, however long that
// takes: what the peer could not send in that time doesn't count as silence.
const waits = 5

// hearing reads from a connection. It fails if nothing was heard for the timeout.
type hearing struct {
	conn    net.Conn
	r       io.Reader // of conn
	timeout time.Duration
}

func (h hearing) Read(p []byte) (n int, err error) {
	for range waits {
		if err := h.conn.SetReadDeadline(time.Now().Add(h.timeout / waits)); err != nil {
			return 0, err
		}
		n, err = h.r.Read(p)
		var late net.Error
		if n > 0 || !errors.As(err, &late) || !late.Timeout() {
			return n, err
		}
	}
	return 0, err
}
