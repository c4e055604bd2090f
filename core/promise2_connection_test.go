package natslease_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// One connection for one set of options, whatever the number of goroutines and clients.
func TestPromise2OneConnection(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	cfg := natslease.Config{Servers: []string{s.URL()}, Name: "shared"}
	clients := []*natslease.Client{newClient(t, cfg), newClient(t, cfg), newClient(t, cfg)}
	var wg sync.WaitGroup
	for _, c := range clients {
		q := named(t, c, natslease.QueueConfig{})
		for range 30 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if _, err := q.Ensure(ctx, natslease.ConflictError); err != nil {
					t.Error(err)
				}
				if _, err := q.Reserve(ctx, 1, 20*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	require.Equal(t, uint64(1), s.TotalConnections())
	for _, c := range clients {
		require.Equal(t, uint64(1), c.Stats().SessionsOpened)
	}

	_, err := newClient(t, natslease.Config{Servers: []string{s.URL()}, Name: "another"}).Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(2), s.TotalConnections())
}

// It is opened by the first call that needs it, and closed by the last client.
func TestPromise2OneConnectionFromFirstCallToLastClose(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	cfg := natslease.Config{Servers: []string{s.URL()}, Name: "shared"}
	one, two := newClient(t, cfg), newClient(t, cfg)
	named(t, one, natslease.QueueConfig{})
	require.False(t, one.Stats().Connected)
	require.Zero(t, s.TotalConnections())

	_, err := one.Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, 1, s.Connections())
	require.NoError(t, one.Close(within(t, patience)))
	require.NoError(t, one.Close(within(t, patience)), "twice is as good as once")
	_, err = one.Ping(within(t, patience))
	requireCode(t, err, natslease.CodeClientClosed, natslease.OutcomeNotSent)

	_, err = two.Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(1), s.TotalConnections(), "the other client keeps the connection")
	require.NoError(t, two.Close(within(t, patience)))
	require.Eventually(t, func() bool { return s.Connections() == 0 }, patience, time.Millisecond)

	three := newClient(t, cfg)
	_, err = three.Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(2), s.TotalConnections())
}

// A caller that gives up while the connection is being opened does not stop it for the others, nor for the next call.
func TestPromise2OneConnectionOutlivesItsFirstCaller(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.Start(t).Addr())
	p.Pause()
	c := connectTo(t, p.URL())
	_, err := c.Ping(within(t, 50*time.Millisecond))
	requireCode(t, err, natslease.CodeDeadline, natslease.OutcomeNotSent)
	p.Resume()
	_, err = c.Ping(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, 1, p.Total())
}

// A thundering herd that finds the session lost opens one connection.
func TestPromise2OneConnectionAfterALoss(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.Start(t).Addr())
	c := connectTo(t, p.URL())
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	p.Cut()
	require.Eventually(t, func() bool { return !c.Stats().Connected }, patience, time.Millisecond)
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, err := c.Ping(ctx); err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	require.Zero(t, failed.Load())
	require.Equal(t, 2, p.Total())
	require.Equal(t, uint64(2), c.Stats().Generation)
}

// A client that comes while the last one takes its time to leave waits for the connection to go, also behind one that
// came and went in between.
func TestPromise2OneConnectionWhileTheLastClientLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	cfg := natslease.Config{Servers: []string{b.server.URL()}, Name: "shared"}
	leaving := newClient(t, cfg)
	q := named(t, leaving, natslease.QueueConfig{})
	call, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := q.Reserve(call, 1, time.Second)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	cancel() // its pull stays out, and leaving waits for that
	require.Error(t, <-ended)
	others := b.server.Connections() - 1
	left := make(chan error, 1)
	go func() { left <- leaving.Close(within(t, patience)) }()
	require.Eventually(t, func() bool {
		_, err := leaving.Ping(within(t, patience))
		return natslease.CodeOf(err) == natslease.CodeClientClosed
	}, patience, time.Millisecond)
	require.NoError(t, newClient(t, cfg).Close(within(t, patience)))
	next := newClient(t, cfg)
	_, err := next.Ping(within(t, patience))
	require.NoError(t, err)
	select {
	case err := <-left:
		left <- err
	case <-time.After(100 * time.Millisecond):
		require.Fail(t, "it did not wait for the connection to go")
	}
	require.NoError(t, <-left, "it was waited for")
	require.Eventually(t, func() bool { return b.server.Connections() == others+1 }, patience, time.Millisecond)
}
