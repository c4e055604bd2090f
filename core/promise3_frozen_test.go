//go:build linux

package natslease_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// Whatever a call has come to when the server falls silent, it fails with the session, and the next call dials. Only a
// publish goes on: under the ids of its messages it can.
func TestPromise3SilenceFailsEveryOperation(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(ctx context.Context, c *natslease.Client, q *natslease.Queue, l *natslease.Lease) error{
		"ping": func(ctx context.Context, c *natslease.Client, _ *natslease.Queue, _ *natslease.Lease) error {
			_, err := c.Ping(ctx)
			return err
		},
		"reserve": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Reserve(ctx, 1, 0)
			return err
		},
		"reserve, wait": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Reserve(ctx, 1, 4*time.Second)
			return err
		},
		"reserve_any": func(ctx context.Context, c *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := c.ReserveAny(ctx, []*natslease.Queue{q}, 1, 0)
			return err
		},
		"ack": func(ctx context.Context, _ *natslease.Client, _ *natslease.Queue, l *natslease.Lease) error {
			return l.Ack(ctx)
		},
		"nak": func(ctx context.Context, _ *natslease.Client, _ *natslease.Queue, l *natslease.Lease) error {
			return l.Nak(ctx, 0)
		},
		"release": func(ctx context.Context, _ *natslease.Client, _ *natslease.Queue, l *natslease.Lease) error {
			return l.Release(ctx)
		},
		"extend": func(ctx context.Context, _ *natslease.Client, _ *natslease.Queue, l *natslease.Lease) error {
			return l.Extend(ctx)
		},
		"term": func(ctx context.Context, _ *natslease.Client, _ *natslease.Queue, l *natslease.Lease) error {
			return l.Term(ctx, "")
		},
		"ensure": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Ensure(ctx, natslease.ConflictKeep)
			return err
		},
		"info": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Info(ctx)
			return err
		},
		"purge": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Purge(ctx)
			return err
		},
		"delete": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Delete(ctx)
			return err
		},
		"dead_letters": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.DeadLetters(ctx, 1)
			return err
		},
		"requeue": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue, _ *natslease.Lease) error {
			_, err := q.Requeue(ctx, []natslease.DeadLetter{{Stream: "jobs", Consumer: "jobs", Seq: 1}})
			return err
		},
		"streams": func(ctx context.Context, c *natslease.Client, _ *natslease.Queue, _ *natslease.Lease) error {
			_, err := c.Streams(ctx, natslease.StreamFilter{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := natstest.StartProcess(t, natstest.Newest)
			c := connectTo(t, p.URL())
			q := existing(t, c, natslease.QueueConfig{DeadLetters: "dead"})
			publish(t, q, 1)
			lease := reserve(t, q, 1)[0]
			p.Freeze()
			frozen := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			err := do(ctx, c, q, lease)
			requireCode(t, err, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
			require.Less(t, time.Since(frozen), 2*time.Second, "one second, and the machine's other work")
			require.Equal(t, uint64(1), c.Stats().Generation)
			require.Zero(t, c.Stats().DialFailures)
		})
	}
}
