package fleet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/fleet"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// patience is far more than anything here takes.
const patience = 20 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// site is one process: a client with its own connection, and the fleet as it sees it.
type site struct {
	*fleet.Fleet
	client *natslease.Client
	queue  *natslease.Queue
}

func open(t testing.TB, url string, cfg fleet.Config) site {
	t.Helper()
	return openWith(t, natslease.Config{Servers: []string{url}}, cfg)
}

func openWith(t testing.TB, options natslease.Config, cfg fleet.Config) site {
	t.Helper()
	options.Name = fmt.Sprintf("%s %p", t.Name(), new(int)) // no shared connection
	c, err := natslease.New(options)
	require.NoError(t, err)
	f, err := fleet.New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		f.Close(ctx)
		_ = c.Close(ctx) // where the server is gone it has nothing to wait for
	})
	q, err := c.Queue(natslease.QueueConfig{Stream: "job_1", Subject: "job.1.tasks", AckWait: 30 * time.Second})
	require.NoError(t, err)
	return site{f, c, q}
}

// join makes the site's process a worker until the end of the test.
func (s site) join(t testing.TB, id fleet.Identity) *fleet.Member {
	t.Helper()
	m, err := s.Join(within(t, patience), id, fleet.Details{Version: "1"})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = m.Leave(ctx) // where the server is gone nobody can be told
	})
	return m
}

func (s site) publish(t testing.TB, n int) {
	t.Helper()
	messages := make([]natslease.Message, n)
	for i := range messages {
		messages[i] = natslease.Message{Data: []byte("x"), ID: fmt.Sprintf("task-%d", i+1)}
	}
	report, err := s.queue.Publish(within(t, patience), messages)
	require.NoError(t, err)
	require.Equal(t, n, report.Accepted())
}

func (s site) reserve(t testing.TB, n int) []*natslease.Lease {
	t.Helper()
	leases, err := s.queue.Reserve(within(t, patience), n, 5*time.Second)
	require.NoError(t, err)
	require.Len(t, leases, n)
	return leases
}

func (s site) ensure(t testing.TB) {
	t.Helper()
	_, err := s.queue.Ensure(within(t, patience), natslease.ConflictError)
	require.NoError(t, err)
}

func requireSuperseded(t testing.TB, err error) *natslease.Error {
	t.Helper()
	var e *natslease.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, natslease.CodeSuperseded, e.Code, "%v", err)
	require.NotEmpty(t, e.Operation)
	return e
}

func gpu(slot string) fleet.Identity {
	return fleet.Identity{Service: "Panama moths (v2)", Host: "node.example", Slot: slot}
}
