package natslease

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// flight is a session's flight recorder: when each of the few moments that explain a failure last happened.
// It is written on the hot path, so a moment is one atomic store.
type flight struct {
	server    string
	base      time.Time // what the offsets below count from
	connected atomic.Int64
	lastWrite atomic.Int64
	lastRead  atomic.Int64
	pingSent  atomic.Int64
	stalled   atomic.Int64 // when the socket last refused bytes
	ended     atomic.Int64
}

func newFlight(server string) *flight {
	return &flight{server: server, base: time.Now()}
}

// mark stores now in a moment. Offsets start at 1 so that 0 means "never".
func (f *flight) mark(moment *atomic.Int64) { moment.Store(int64(time.Since(f.base)) + 1) }

// lastByte is when something was last received.
func (f *flight) lastByte() time.Time {
	return f.base.Add(time.Duration(f.lastRead.Load() - 1))
}

// since tells how long ago a moment was, and whether it ever was.
func (f *flight) since(moment *atomic.Int64) (time.Duration, bool) {
	at := moment.Load()
	if at == 0 {
		return 0, false
	}
	return time.Since(f.base) - time.Duration(at-1), true
}

// history puts the moments into words, oldest first.
func (f *flight) history() string {
	var b strings.Builder
	ago := func(what string, moment *atomic.Int64) {
		if d, ok := f.since(moment); ok {
			fmt.Fprintf(&b, "  %8.3f s ago: %s\n", d.Seconds(), what)
		}
	}
	fmt.Fprintf(&b, "connection to %s:\n", f.server)
	fmt.Fprintf(&b, "  %8.3f s ago: dial started\n", time.Since(f.base).Seconds())
	ago("connected", &f.connected)
	ago("last byte written", &f.lastWrite)
	ago("last byte received", &f.lastRead)
	ago("the socket buffer was full", &f.stalled)
	ago("PING sent to see whether the server is alive", &f.pingSent)
	ago("the connection ended", &f.ended)
	if w, ok := f.since(&f.lastWrite); ok {
		if r, ok := f.since(&f.lastRead); ok && r > w {
			fmt.Fprintf(&b, "the server has been silent since %.3f s before the last write\n", (r - w).Seconds())
		}
	} else if _, ok := f.since(&f.connected); !ok {
		b.WriteString("the connection was never established\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
