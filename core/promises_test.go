package natslease_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// The files promise<n>_..._test.go hold one promise of the README each. What they share is here.

// patience is the deadline of calls that are to succeed.
const patience = 20 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// newClient makes a client with a session of its own, closed with the test.
func newClient(t testing.TB, cfg natslease.Config) *natslease.Client {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("%s %p", t.Name(), new(int))
	}
	c, err := natslease.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = c.Close(ctx) // where the server is gone it has nothing to wait for
	})
	return c
}

func connectTo(t testing.TB, url string) *natslease.Client {
	t.Helper()
	return newClient(t, natslease.Config{Servers: []string{url}})
}

// existing is a queue that Ensure has made.
func existing(t testing.TB, c *natslease.Client, cfg natslease.QueueConfig) *natslease.Queue {
	t.Helper()
	q := named(t, c, cfg)
	ctx := within(t, patience)
	_, err := q.Ensure(ctx, natslease.ConflictError)
	// On a busy machine a cluster may have just taken one of its servers for offline.
	for err != nil && strings.Contains(err.Error(), "peer offline") && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		_, err = q.Ensure(ctx, natslease.ConflictError)
	}
	require.NoError(t, err)
	return q
}

// named is a queue of which the server may know nothing.
func named(t testing.TB, c *natslease.Client, cfg natslease.QueueConfig) *natslease.Queue {
	t.Helper()
	if cfg.Stream == "" {
		cfg.Stream = "jobs"
	}
	q, err := c.Queue(cfg)
	require.NoError(t, err)
	return q
}

// bundle is a server with a client and a queue.
type bundle struct {
	server *natstest.Server
	client *natslease.Client
	queue  *natslease.Queue
	js     jetstream.JetStream // past natslease
}

func setup(t testing.TB, cfg natslease.QueueConfig) bundle {
	t.Helper()
	s := natstest.Start(t)
	c := connectTo(t, s.URL())
	return bundle{server: s, client: c, queue: existing(t, c, cfg), js: natstest.JetStream(t, s.URL())}
}

// publish puts n tasks into the queue, with the payloads "0", "1", ...
func publish(t testing.TB, q *natslease.Queue, n int) {
	t.Helper()
	messages := make([]natslease.Message, n)
	for i := range messages {
		messages[i].Data = fmt.Append(nil, i)
	}
	report, err := q.Publish(within(t, patience), messages)
	require.NoError(t, err)
	require.Equal(t, n, report.Accepted(), "%+v", report.Results)
}

// reserve takes exactly n tasks, in as many calls as it needs.
func reserve(t testing.TB, q *natslease.Queue, n int) []*natslease.Lease {
	t.Helper()
	var leases []*natslease.Lease
	for len(leases) < n {
		got, err := q.Reserve(within(t, patience), n-len(leases), 5*time.Second)
		require.NoError(t, err)
		require.NotEmpty(t, got, "%d of %d tasks came", len(leases), n)
		leases = append(leases, got...)
	}
	return leases
}

// awaitPulls waits until the server holds n pulls.
func awaitPulls(t testing.TB, q *natslease.Queue, n uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := q.Info(within(t, patience))
		return err == nil && info.NumWaiting >= n
	}, patience, time.Millisecond)
}

func requireEmpty(t testing.TB, q *natslease.Queue) {
	t.Helper()
	leases, err := q.Reserve(within(t, patience), 1, 0)
	require.NoError(t, err)
	require.Empty(t, leases)
}

// requireCode checks what an error is.
func requireCode(t testing.TB, err error, code natslease.Code, outcome natslease.Outcome) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code, natslease.CodeOf(err), "%v", err)
	var e *natslease.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, outcome, e.Outcome, "%v", err)
	require.NotEmpty(t, e.Operation, "%v", err)
}

// atOnce runs call, which has much time, and checks that it takes little.
func atOnce(t testing.TB, call func(ctx context.Context)) {
	t.Helper()
	started := time.Now()
	call(within(t, patience))
	require.Less(t, time.Since(started), 3*time.Second)
}

func ack(ctx context.Context, q *natslease.Queue, subject string) natslease.SettleResult {
	results, err := q.Settle(ctx, natslease.Settlement{Kind: natslease.Ack}, []natslease.SettleItem{{AckSubject: subject}})
	if err != nil {
		return natslease.SettleResult{Err: err.(*natslease.Error)}
	}
	return results[0]
}
