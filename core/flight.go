package natslease

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sort"
	"strings"
	"sync/atomic"
	"time"
)

// flight is a session's flight recorder: when each of the few moments that explain a failure happened. It is written on
// the hot path, so a moment is one atomic store.
type flight struct {
	server string
	base   time.Time // what the offsets below count from: when the dial started

	// Of the dial: when each step was first taken.
	lookup     atomic.Int64 // a name server was asked
	lookedUp   atomic.Int64
	connecting atomic.Int64
	accepted   atomic.Int64 // there is a TCP connection
	greeted    atomic.Int64 // the first byte came
	handshake  atomic.Int64 // TLS began
	asked      atomic.Int64 // CONNECT was sent; with TLS: our side of the handshake was complete
	connected  atomic.Int64

	// Of the session: when each last happened.
	lastWrite atomic.Int64
	lastRead  atomic.Int64
	pingSent  atomic.Int64
	stalled   atomic.Int64 // the socket refused bytes
	ended     atomic.Int64

	received   atomic.Int64 // bytes
	unsent     atomic.Int64 // bytes that the socket has refused and that still wait
	shortReads atomic.Int64 // in a row
	shortSince atomic.Int64
	midMessage atomic.Bool // what was last received is not the end of a protocol message; means nothing under TLS
}

// shortRead is a read of so few bytes that no message fits into it. A number of them in a row is a connection that
// delivers drop by drop.
const (
	shortRead    = 2
	manyInARow   = 8
	longSilence  = 100 * time.Millisecond // no round trip takes so long on a connection that is well
	tlsHandshake = 0x16                   // the type of a TLS record
)

func newFlight(server string) *flight {
	return &flight{server: server, base: time.Now()}
}

// now is this moment's offset. Offsets start at 1 so that 0 means "never".
func (f *flight) now() int64 { return int64(time.Since(f.base)) + 1 }

// mark stores now in a moment.
func (f *flight) mark(moment *atomic.Int64) { moment.Store(f.now()) }

// at is when the moment of an offset was.
func (f *flight) at(offset int64) time.Time { return f.base.Add(time.Duration(offset - 1)) }

// markFirst stores now in a moment that happens once, or of which the first time counts.
func (f *flight) markFirst(moment *atomic.Int64) {
	if moment.Load() == 0 {
		moment.CompareAndSwap(0, int64(time.Since(f.base))+1)
	}
}

// traced is ctx for a dialer whose look-up and connect are to be recorded. Of several addresses the first counts.
func (f *flight) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { f.markFirst(&f.lookup) },
		DNSDone:      func(httptrace.DNSDoneInfo) { f.markFirst(&f.lookedUp) },
		ConnectStart: func(_, _ string) { f.markFirst(&f.connecting) },
	})
}

// heard records what was received.
func (f *flight) heard(p []byte) {
	f.mark(&f.lastRead)
	f.received.Add(int64(len(p)))
	f.midMessage.Store(p[len(p)-1] != '\n')
	switch {
	case len(p) <= shortRead:
		if f.shortReads.Add(1) == 1 {
			f.mark(&f.shortSince)
		}
	case f.shortReads.Load() != 0:
		f.shortReads.Store(0)
	}
	if f.connected.Load() == 0 {
		f.markFirst(&f.greeted)
	}
}

// spoke records what is about to be written.
func (f *flight) spoke(p []byte) {
	f.mark(&f.lastWrite)
	if f.connected.Load() != 0 || len(p) == 0 {
		return
	}
	switch {
	case p[0] == tlsHandshake:
		f.markFirst(&f.handshake)
	case p[0] != 'G': // a WebSocket's GET
		f.markFirst(&f.asked)
	}
}

// lastByte is when something was last received.
func (f *flight) lastByte() time.Time {
	return f.at(f.lastRead.Load())
}

// since tells how long ago a moment was, and whether it ever was.
func (f *flight) since(moment *atomic.Int64) (time.Duration, bool) {
	at := moment.Load()
	if at == 0 {
		return 0, false
	}
	return time.Since(f.base) - time.Duration(at-1), true
}

// history puts into words what the fault is, given the error that ended the connection or nil, and then the moments,
// oldest first.
func (f *flight) history(err error) string {
	type step struct {
		ago  time.Duration
		what string
	}
	steps := []step{{time.Since(f.base), "dial started"}}
	for _, m := range []struct {
		moment *atomic.Int64
		what   string
	}{
		{&f.lookup, "a name server was asked for the host's address"},
		{&f.lookedUp, "the look-up ended"},
		{&f.connecting, "TCP connection begun"},
		{&f.accepted, "TCP connection accepted"},
		{&f.greeted, "first byte received"},
		{&f.handshake, "TLS handshake begun"},
		{&f.asked, "CONNECT sent"},
		{&f.connected, "connected"},
		{&f.lastWrite, "last byte written"},
		{&f.lastRead, "last byte received"},
		{&f.stalled, "the socket buffer was full"},
		{&f.pingSent, "PING sent to see whether the server is alive"},
		{&f.ended, "the connection ended"},
	} {
		if d, ok := f.since(m.moment); ok {
			steps = append(steps, step{d, m.what})
		}
	}
	sort.SliceStable(steps, func(i, j int) bool { return steps[i].ago > steps[j].ago })
	var b strings.Builder
	fmt.Fprintf(&b, "what happened: %s\n", f.diagnosis(err))
	fmt.Fprintf(&b, "connection to %s:", f.server)
	for _, s := range steps {
		fmt.Fprintf(&b, "\n  %8.3f s ago: %s", s.ago.Seconds(), s.what)
	}
	return b.String()
}
