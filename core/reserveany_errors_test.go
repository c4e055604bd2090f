package natslease_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// What is wrong with some queues does not fail the others.
func TestReserveAnyReportsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(
		&server.User{Username: "all", Password: "p"},
		&server.User{Username: "some", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.job_3.>"}},
		}},
	))
	all := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "all", Password: "p"})
	queues := jobs(t, all, 6, natslease.QueueConfig{MaxAckPending: 1})
	_, err := queues[1].Delete(within(t, patience))
	require.NoError(t, err)
	publish(t, queues[2], 2)
	reserve(t, queues[2], 1)
	publish(t, queues[3], 1)
	c := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "some", Password: "p"})
	for i, q := range queues {
		queues[i] = named(t, c, natslease.QueueConfig{Stream: q.Config().Stream})
	}
	wrong := func(report natslease.AnyReport) {
		t.Helper()
		require.Equal(t, []*natslease.Queue{queues[1]}, report.Missing)
		require.Len(t, report.Errors, 2)
		requireCode(t, report.Errors[queues[2]], natslease.CodeSaturated, natslease.OutcomeRejected)
		requireCode(t, report.Errors[queues[3]], natslease.CodePermissionDenied, natslease.OutcomeRejected)
	}
	for range 3 {
		started := time.Now()
		report := reserveAny(t, c, queues, 5, 0)
		require.Empty(t, report.Leases)
		wrong(report)
		require.Less(t, time.Since(started), time.Second)
	}
	info, err := all.Queue(natslease.QueueConfig{Stream: "job_2"})
	require.NoError(t, err)
	left, err := info.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, left.NumWaiting, "it leaves no pull at a saturated consumer")

	publish(t, queues[4], 2)
	report := reserveAny(t, c, queues, 5, 0)
	require.Len(t, report.Leases, 1) // of max_ack_pending 1
	require.NoError(t, report.Leases[0].Ack(within(t, patience)))

	// An error only if every queue failed.
	report, err = c.ReserveAny(within(t, patience), queues[1:4], 5, 0)
	requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
	wrong(report)
	started := time.Now()
	report, err = c.ReserveAny(within(t, patience), queues[1:2], 5, 5*time.Second)
	requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	require.Len(t, report.Missing, 1)
	require.Less(t, time.Since(started), 2*time.Second, "waiting for it is of no use")
	// A queue that is made again is seen: at once by who made it.
	_, err = named(t, all, natslease.QueueConfig{Stream: "job_1"}).Ensure(within(t, patience), natslease.ConflictError)
	require.NoError(t, err)
	_, err = queues[1].Ensure(within(t, patience), natslease.ConflictError)
	require.NoError(t, err)
	report = reserveAny(t, c, queues, 5, 0)
	require.Empty(t, report.Missing)
}

// An own settlement ends saturation at once.
func TestReserveAnyAfterSaturation(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	c := connectTo(t, s.URL())
	queues := jobs(t, c, 2, natslease.QueueConfig{MaxAckPending: 1})
	publish(t, queues[0], 4)
	for range 3 {
		leases := reserveAny(t, c, queues, 5, 0).Leases
		require.Len(t, leases, 1)
		report := reserveAny(t, c, queues, 5, 0)
		require.Empty(t, report.Leases)
		require.Len(t, report.Errors, 1)
		require.NoError(t, leases[0].Ack(within(t, patience)))
	}
}

func TestReserveAnyKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	p := natstest.StartProcess(t, natstest.Newest)
	c := newClient(t, natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: time.Minute})
	queues := jobs(t, c, 200, natslease.QueueConfig{})
	p.Freeze()
	defer p.Thaw()
	var late natstest.Lateness
	for _, wait := range []time.Duration{0, 100 * time.Millisecond} {
		late.Measure(time.Now().Add(300*time.Millisecond), func() {
			_, err := c.ReserveAny(within(t, 300*time.Millisecond), queues, 64, wait)
			requireCode(t, err, natslease.CodeDeadline, natslease.OutcomeUnknown)
		})
	}
	late.Assert(t)
}

func TestReserveAnyRefusesBadInput(t *testing.T) {
	t.Parallel()
	p := natstest.DeafPort(t)
	c, other := connectTo(t, p.URL()), connectTo(t, p.URL())
	q := named(t, c, natslease.QueueConfig{})
	for _, call := range []struct {
		queues []*natslease.Queue
		n      int
		wait   time.Duration
	}{
		{nil, 1, 0},
		{[]*natslease.Queue{nil}, 1, 0},
		{[]*natslease.Queue{q, named(t, other, natslease.QueueConfig{})}, 1, 0},
		{[]*natslease.Queue{q}, 0, 0},
		{[]*natslease.Queue{q}, natslease.MaxReserve + 1, 0},
		{[]*natslease.Queue{q}, 1, -1},
	} {
		_, err := c.ReserveAny(within(t, patience), call.queues, call.n, call.wait)
		requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	}
	_, err := c.ReserveAny(within(t, time.Second), []*natslease.Queue{q}, 1, time.Second)
	requireCode(t, err, natslease.CodeDeadline, natslease.OutcomeNotSent)
	require.Zero(t, p.Connections())
}
