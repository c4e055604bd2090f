//go:build linux

package natslease_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// inFlight starts calls that the server has no answer to, and returns how they end.
func inFlight(t *testing.T, c *natslease.Client, q *natslease.Queue, n int) <-chan error {
	t.Helper()
	ends := make(chan error, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := q.Reserve(ctx, 1, patience-time.Second)
			ends <- err
		})
	}
	t.Cleanup(wg.Wait)
	require.Eventually(t, func() bool { return c.Stats().InFlight == n }, patience, time.Millisecond)
	awaitPulls(t, q, 1)
	return ends
}

// A lost session fails every call in flight at once, and only the next call dials.
func TestPromise3NeverReconnects(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.Start(t).Addr())
	c := connectTo(t, p.URL())
	q := existing(t, c, natslease.QueueConfig{})
	ends := inFlight(t, c, q, 20)
	cut := time.Now()
	p.Cut()
	for range 20 {
		requireCode(t, <-ends, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
	}
	require.Less(t, time.Since(cut), 250*time.Millisecond)
	require.False(t, c.Stats().Connected)
	require.Equal(t, uint64(1), c.Stats().SessionsLost)
	// That nothing happens can only be waited for: twice as long as nats.go waits before it reconnects.
	time.Sleep(4 * time.Second)
	require.Equal(t, 1, p.Total())
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, 2, p.Total())
	require.Equal(t, uint64(2), c.Stats().Generation)
}

// Silence is noticed while something is awaited: one timeout until the PING, one more until the end.
func TestPromise3SilenceIsNoticed(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]time.Duration{"by default": 0, "as set": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := natstest.StartProcess(t, natstest.Newest)
			c := newClient(t, natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: silence})
			q := existing(t, c, natslease.QueueConfig{})
			ends := inFlight(t, c, q, 3)
			p.Freeze()
			frozen := time.Now()
			if silence == 0 {
				silence = 500 * time.Millisecond
			}
			for range 3 {
				requireCode(t, <-ends, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
			}
			require.InDelta(t, 2*silence.Seconds(), time.Since(frozen).Seconds(), 0.8*silence.Seconds())
			p.Thaw()
			_, err := c.Ping(within(t, patience))
			require.NoError(t, err)
		})
	}
}

// A server that is slow to answer but alive keeps its session.
func TestPromise3SilenceOfABusyServerIsNone(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	leases, err := b.queue.Reserve(within(t, patience), 1, 2*time.Second)
	require.NoError(t, err)
	require.Empty(t, leases)
	require.Equal(t, uint64(1), b.server.TotalConnections()-1) // besides the test's own
	require.Zero(t, b.client.Stats().SessionsLost)
}

// An idle session is looked after too.
func TestPromise3SilenceIsNoticedWhenIdle(t *testing.T) {
	t.Parallel()
	p := natstest.StartProcess(t, natstest.Newest)
	c := connectTo(t, p.URL())
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	p.Freeze()
	frozen := time.Now()
	require.Eventually(t, func() bool { return !c.Stats().Connected }, patience, 10*time.Millisecond)
	require.Less(t, time.Since(frozen), 7*time.Second)
}

// A server in lame duck mode is left at once.
func TestPromise3LameDuck(t *testing.T) {
	t.Parallel()
	for name, announce := range map[string]func(p *natstest.Process){
		"lame duck": func(p *natstest.Process) { p.LameDuck() },
		"SIGTERM":   func(p *natstest.Process) { p.Stop() },
		"SIGKILL":   func(p *natstest.Process) { p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := natstest.StartProcess(t, natstest.Newest)
			c := connectTo(t, p.URL())
			q := existing(t, c, natslease.QueueConfig{})
			ends := inFlight(t, c, q, 3)
			announced := time.Now()
			announce(p)
			for range 3 {
				requireCode(t, <-ends, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
			}
			require.Less(t, time.Since(announced), 2*time.Second)
			p.Restart()
			require.Eventually(t, func() bool {
				_, err := c.Ping(within(t, patience))
				return err == nil // the circuit breaker may ask for a moment
			}, patience, 10*time.Millisecond)
		})
	}
}
