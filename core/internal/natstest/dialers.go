package natstest

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
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

// GatedDialer is a dialer that connects, refuses, or lets wait, as it is told. It begins by connecting.
type GatedDialer struct {
	mu      sync.Mutex
	refuses bool
	gate    chan struct{} // nil when open; closed when it opens
	dials   int
	entered chan struct{}
}

// NewGatedDialer makes one.
func NewGatedDialer() *GatedDialer { return &GatedDialer{entered: make(chan struct{}, 1)} }

// Dials is how often it was asked.
func (d *GatedDialer) Dials() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dials
}

// Entered gets a value when it was asked since the last value was taken.
func (d *GatedDialer) Entered() <-chan struct{} { return d.entered }

// Hold lets dials wait for Refuse or Connect.
func (d *GatedDialer) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate == nil {
		d.gate = make(chan struct{})
	}
}

// Refuse has dials fail, those that wait too.
func (d *GatedDialer) Refuse() { d.open(true) }

// Connect has dials succeed, those that wait too.
func (d *GatedDialer) Connect() { d.open(false) }

func (d *GatedDialer) open(refuses bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = refuses
	if d.gate != nil {
		close(d.gate)
		d.gate = nil
	}
}

// DialContext does as it is told.
func (d *GatedDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.dials++
	gate := d.gate
	d.mu.Unlock()
	select {
	case d.entered <- struct{}{}:
	default:
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	d.mu.Lock()
	refuses := d.refuses
	d.mu.Unlock()
	if refuses {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}
