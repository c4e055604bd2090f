package natslease

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// maxUnsent bounds what a wire holds for a peer that does not read. Calls bound themselves long before (see
	// session.budget); reaching this means that the session is dead.
	maxUnsent = 256 << 20
	// pieceSize is the size of the buffers in which it is held. One buffer that grows would be copied again and again
	// while the peer stalls.
	pieceSize = 64 << 10
	// failureGrace is how long the reader may go on after a write has failed. The peer may have said why it left.
	failureGrace = 20 * time.Millisecond
)

var errUnsent = errors.New("the server does not read what is sent to it")

// wire is the connection that is handed to nats.go. Its Write never blocks: nats.go writes while it holds
// the lock that publish, flush and close need, so one full socket buffer would stall every caller past its deadline.
// What the socket does not take at once is kept and written by a goroutine that ends with the connection.
type wire struct {
	net.Conn
	flight *flight
	direct directWriter

	mu       sync.Mutex
	corks    int      // calls that write more at once
	corked   []byte   // what they have written so far
	unsent   [][]byte // pieces, all but the last one full
	held     int      // bytes in them and in what flush is writing
	spare    []byte   // a piece to use again
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
		w.flight.heard(p[:n])
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if w.corks > 0 {
		w.corked = append(w.corked, p...)
		if len(w.corked) < pieceSize {
			return len(p), nil
		}
		return len(p), w.uncorked()
	}
	return len(p), w.send(p)
}

// cork begins a run of writes that go out together, at the latest when there is a piece of them. Whoever corks must not
// wait for anything until uncork.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corks++
}

// uncork ends a run of writes. An error is met by the next write, too.
func (w *wire) uncork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corks--
	if w.corks == 0 {
		_ = w.uncorked()
	}
}

// uncorked sends what was corked; w.mu is held.
func (w *wire) uncorked() error {
	if len(w.corked) == 0 || w.err != nil {
		return w.err
	}
	p := w.corked
	w.corked = w.corked[:0]
	return w.send(p)
}

// send writes p without waiting; w.mu is held.
func (w *wire) send(p []byte) error {
	w.flight.spoke(p)
	rest := p
	if !w.flushing && w.direct != nil {
		n, err := w.direct.tryWrite(p)
		if err != nil {
			w.fail(err)
			return err
		}
		rest = p[n:]
	}
	if len(rest) == 0 {
		return nil
	}
	if w.held+len(rest) > maxUnsent {
		w.fail(errUnsent)
		return errUnsent
	}
	w.hold(rest)
	if !w.flushing {
		if w.direct != nil {
			w.flight.mark(&w.flight.stalled)
		}
		w.flushing = true
		go w.flush()
	}
	return nil
}

// hold keeps a copy of p; w.mu is held.
func (w *wire) hold(p []byte) {
	w.held += len(p)
	w.flight.unsent.Store(int64(w.held))
	for len(p) > 0 {
		last := len(w.unsent) - 1
		if last < 0 || len(w.unsent[last]) == cap(w.unsent[last]) {
			piece := w.spare
			w.spare = nil
			if piece == nil {
				piece = make([]byte, 0, pieceSize)
			}
			w.unsent = append(w.unsent, piece[:0])
			last++
		}
		piece := w.unsent[last]
		n := min(len(p), cap(piece)-len(piece))
		w.unsent[last] = append(piece, p[:n]...)
		p = p[n:]
	}
}

// flush writes what the socket refused. It ends when nothing is left or the connection has failed.
func (w *wire) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.unsent) > 0 && w.err == nil {
		pieces := w.unsent
		w.unsent = nil
		for _, piece := range pieces {
			w.mu.Unlock()
			_, err := w.Conn.Write(piece)
			w.mu.Lock()
			w.held -= len(piece)
			w.flight.unsent.Store(int64(w.held))
			w.spare = piece
			if err != nil {
				w.fail(err)
				break
			}
		}
	}
	w.flushing, w.unsent, w.spare = false, nil, nil
}

// fail makes err the end of the wire; w.mu is held. A failed write has no caller to go to: the reader is made to end
// the session, after what has arrived.
func (w *wire) fail(err error) {
	if w.err != nil {
		return
	}
	w.err = err
	_ = w.SetReadDeadline(time.Now().Add(failureGrace))
}

// failure is why nothing can be written any more, or nil.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// holds tells whether something has not been given to the socket yet.
func (w *wire) holds() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held > 0
}

// directWriter writes to a socket without ever waiting for room.
type directWriter interface {
	tryWrite(p []byte) (int, error)
}
