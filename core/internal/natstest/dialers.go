package natstest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// HangingLookup is a dialer whose name server never answers.
func HangingLookup(t testing.TB) *net.Dialer {
	t.Helper()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var over bool
	var queries []net.Conn
	t.Cleanup(func() {
		_ = silent.Close()
		mu.Lock()
		defer mu.Unlock()
		// The resolver goes on waiting for an answer when its context has ended.
		over = true
		for _, c := range queries {
			_ = c.Close()
		}
	})
	return &net.Dialer{Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if over {
				return nil, net.ErrClosed
			}
			var d net.Dialer
			c, err := d.DialContext(ctx, "udp", silent.LocalAddr().String())
			if err == nil {
				queries = append(queries, c)
			}
			return c, err
		},
	}}
}

// StuckDialer is a dialer that does not heed its context, as a look-up in the C library does not. It lets go when the
// test ends.
type StuckDialer struct {
	released chan struct{}
	entered  chan struct{}
}

// NewStuckDialer makes one.
func NewStuckDialer(t testing.TB) *StuckDialer {
	d := &StuckDialer{released: make(chan struct{}), entered: make(chan struct{}, 1)}
	t.Cleanup(func() { close(d.released) })
	return d
}

// Entered gets a value when somebody dials.
func (d *StuckDialer) Entered() <-chan struct{} { return d.entered }

// DialContext blocks.
func (d *StuckDialer) DialContext(context.Context, string, string) (net.Conn, error) {
	select {
	case d.entered <- struct{}{}:
	default:
	}
	<-d.released
	return nil, errors.New("natstest: the stuck dialer was released")
}
