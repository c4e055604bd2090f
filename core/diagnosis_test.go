package natslease

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// past makes a recorder in which each moment was so long ago; the dial began a minute ago.
func past(moments map[string]time.Duration) *flight {
	f := newFlight("nats://host:4222")
	f.base = time.Now().Add(-time.Minute)
	for name, ago := range moments {
		map[string]*atomic.Int64{
			"lookup": &f.lookup, "looked up": &f.lookedUp, "connecting": &f.connecting, "accepted": &f.accepted,
			"greeted": &f.greeted, "handshake": &f.handshake, "asked": &f.asked, "connected": &f.connected,
			"write": &f.lastWrite, "read": &f.lastRead, "ping": &f.pingSent, "stalled": &f.stalled,
		}[name].Store(int64(time.Minute - ago))
	}
	return f
}

func TestDiagnosis(t *testing.T) {
	t.Parallel()
	const s = time.Second
	type moments = map[string]time.Duration
	for name, c := range map[string]struct {
		moments moments
		also    func(f *flight)
		err     error
		want    string
	}{
		"DNS hangs":     {moments: moments{"lookup": 2 * s}, err: context.DeadlineExceeded, want: "the name server has not answered for 2.0"},
		"DNS timed out": {moments: moments{"lookup": 2 * s, "looked up": 0}, err: &net.DNSError{Err: "i/o timeout", IsTimeout: true}, want: "the name server has not answered for 2.0"},
		"DNS given up":  {moments: moments{"lookup": 2 * s, "looked up": 0}, err: context.DeadlineExceeded, want: "the name server has not answered for 2.0"},
		"no such name":  {moments: moments{"lookup": s}, err: &net.DNSError{Err: "no such host", IsNotFound: true}, want: "could not be looked up: no such host"},
		"refused":       {moments: moments{"connecting": s}, err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, want: "nothing listens at that address"},
		"TCP unanswered": {
			moments: moments{"connecting": 2 * s}, err: context.DeadlineExceeded,
			want: "nobody has answered the TCP connection for 2.0",
		},
		"a dialer of the caller's": {err: context.DeadlineExceeded, want: "no connection after 60.0"},
		"deaf":                     {moments: moments{"connecting": 2 * s, "accepted": 2 * s}, err: context.DeadlineExceeded, want: "but the server's greeting (INFO) never came"},
		"half a greeting": {
			moments: moments{"accepted": 2 * s, "greeted": s}, also: func(f *flight) { f.received.Store(20); f.midMessage.Store(true) },
			err: context.DeadlineExceeded, want: "greeting (INFO) broke off after 20 bytes, 2.0",
		},
		"greeting drop by drop": {
			moments: moments{"accepted": 2 * s, "greeted": s}, also: func(f *flight) { f.received.Store(20); f.shortReads.Store(20); f.midMessage.Store(true) },
			err: context.DeadlineExceeded, want: "while it was being opened, the connection delivers drop by drop: 20 times",
		},
		"TLS stalls":         {moments: moments{"accepted": 2 * s, "greeted": 2 * s, "handshake": s}, err: context.DeadlineExceeded, want: "the TLS handshake was begun 1.0"},
		"CONNECT unanswered": {moments: moments{"accepted": 2 * s, "greeted": 2 * s, "asked": s}, err: context.DeadlineExceeded, want: "has not answered CONNECT for 1.0"},
		"closed while dialing": {
			moments: moments{"accepted": 2 * s}, err: io.EOF,
			want: "closed from the other side before it was complete",
		},
		"frozen":      {moments: moments{"connected": 9 * s, "write": 2 * s, "read": 3 * s, "ping": s}, want: "the server went silent: nothing was received for 3.0"},
		"not pinged":  {moments: moments{"connected": 9 * s, "write": s / 2, "read": s / 2}, want: "the server has been silent for 0.5"},
		"answer gone": {moments: moments{"connected": 9 * s, "write": 2 * s, "read": s / 100, "ping": s}, want: "the connection is alive, the last byte came 0.01"},
		"cut":         {moments: moments{"connected": 9 * s, "read": s}, err: syscall.ECONNRESET, want: "cut from the other side, 1.0"},
		"cut in mid-message": {
			moments: moments{"connected": 9 * s, "read": s}, also: func(f *flight) { f.midMessage.Store(true) }, err: syscall.ECONNRESET,
			want: "cut from the other side in the middle of a message, 1.0",
		},
		"full socket buffer": {
			moments: moments{"connected": 9 * s, "write": s, "read": 3 * s, "ping": s, "stalled": 2 * s}, also: func(f *flight) { f.unsent.Store(77) },
			want: "does not read what is sent to it: 77 bytes wait here since the socket buffer was full, 2.0",
		},
		"drop by drop": {moments: moments{"connected": 9 * s, "read": 0}, also: func(f *flight) { f.shortReads.Store(8) }, want: "the connection delivers drop by drop: 8 times"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := past(c.moments)
			if c.also != nil {
				c.also(f)
			}
			first, _, _ := strings.Cut(f.history(c.err), "\n")
			require.Contains(t, first, "what happened: ")
			require.Contains(t, first, c.want)
		})
	}
}

// A dial that had no time is not blamed for it.
func TestDiagnosisOfAYoungDial(t *testing.T) {
	t.Parallel()
	f := newFlight("nats://host:4222")
	f.mark(&f.connecting)
	require.Contains(t, f.history(context.DeadlineExceeded), "this connection was begun only 0.0")
}

// The moments are told in the order in which they happened.
func TestFlightHistory(t *testing.T) {
	t.Parallel()
	f := past(map[string]time.Duration{"connected": 3 * time.Second, "read": 2 * time.Second, "write": time.Second})
	require.Regexp(t, `(?s)60\.0.. s ago: dial started.*3\.0.. s ago: connected.*2\.0.. s ago: last byte received.*1\.0.. s ago: last byte written$`,
		f.history(nil))
}

func TestFlightHeard(t *testing.T) {
	t.Parallel()
	f := newFlight("")
	for range manyInARow {
		f.heard([]byte("x"))
	}
	require.True(t, f.isTrickling())
	require.True(t, f.midMessage.Load())
	f.heard([]byte("PONG\r\n"))
	require.False(t, f.isTrickling())
	require.False(t, f.midMessage.Load())
	require.EqualValues(t, manyInARow+6, f.received.Load())
}
