package natslease

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// maxUnsent bounds what a wire holds for a peer that does not read. Calls bound themselves long before
// (see session.reserveBytes); reaching this means that the session is dead.
const maxUnsent = 256 << 20

var errUnsent = errors.New("the server does not read what is sent to it")

// wire is the connection that is handed to nats.go. Its Write never blocks: nats.go writes while it holds
// the lock that publish, flush and close need, so one full socket buffer would stall every caller past its deadline.
// What the socket does not take at once is kept and written by a goroutine that ends with the connection.
type wire struct {
	net.Conn
	flight *flight
	direct directWriter

	mu       sync.Mutex
	unsent   []byte
	flushing bool
	err      error
}

func newWire(conn net.Conn, f *flight) *wire {
	w := &wire{Conn: conn, flight: f}
	if sc, ok := conn.(syscall.Conn); ok {
		w.direct = newDirectWriter(sc)
	}
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.flight.mark(&w.flight.lastRead)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.flight.mark(&w.flight.lastWrite)
	rest := p
	if !w.flushing && w.direct != nil {
		n, err := w.direct.tryWrite(p)
		if err != nil {
			w.err = err
			return n, err
		}
		rest = p[n:]
	}
	if len(rest) == 0 {
		return len(p), nil
	}
	if len(w.unsent)+len(rest) > maxUnsent {
		w.err = errUnsent
		return 0, w.err
	}
	w.unsent = append(w.unsent, rest...)
	if !w.flushing {
		if w.direct != nil {
			w.flight.mark(&w.flight.stalled)
		}
		w.flushing = true
		go w.flush()
	}
	return len(p), nil
}

// flush writes what the socket refused. It ends when nothing is left or the connection is closed.
func (w *wire) flush() {
	var spare []byte
	for {
		w.mu.Lock()
		if len(w.unsent) == 0 || w.err != nil {
			w.flushing = false
			w.mu.Unlock()
			return
		}
		batch := w.unsent
		w.unsent = spare[:0]
		w.mu.Unlock()
		if _, err := w.Conn.Write(batch); err != nil {
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			// The reader notices and ends the session: a write error has no caller to go to.
			_ = w.Conn.Close()
		}
		spare = batch
	}
}

// directWriter writes to a socket without ever waiting for room.
type directWriter interface {
	tryWrite(p []byte) (int, error)
}
