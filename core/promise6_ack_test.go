//go:build linux

package natslease_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func settle(t *testing.T, q *natslease.Queue, kind natslease.SettleKind, items ...natslease.SettleItem) []natslease.SettleResult {
	t.Helper()
	results, err := q.Settle(within(t, patience), natslease.Settlement{Kind: kind}, items)
	require.NoError(t, err)
	require.Len(t, results, len(items))
	return results
}

func item(l *natslease.Lease) natslease.SettleItem {
	return natslease.SettleItem{AckSubject: l.AckSubject, Expires: l.Expires}
}

// Settled is what the server has confirmed: from the lease, from an ack subject in another process, and repeated.
func TestPromise6AckedIsSettled(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	publish(t, b.queue, 66)
	leases := reserve(t, b.queue, 66)
	require.NoError(t, leases[0].Ack(within(t, patience)))
	require.NoError(t, leases[0].Ack(within(t, patience)))
	another := named(t, connectTo(t, b.server.URL()), natslease.QueueConfig{})
	require.Equal(t, natslease.SettleResult{Status: natslease.Settled}, ack(within(t, patience), another, leases[1].AckSubject))
	items := make([]natslease.SettleItem, 0, 64)
	for _, l := range leases[2:] {
		items = append(items, item(l))
	}
	for _, r := range settle(t, b.queue, natslease.Ack, items...) {
		require.Equal(t, natslease.SettleResult{Status: natslease.Settled}, r)
	}
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.Messages)
	require.Zero(t, info.NumAckPending)
}

// Gone is said only when the server has confirmed that the queue is.
func TestPromise6AckOfAQueueThatIsGone(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(t *testing.T, b bundle) error{
		"stream":   func(t *testing.T, b bundle) error { return b.js.DeleteStream(within(t, patience), "jobs") },
		"consumer": func(t *testing.T, b bundle) error { return b.js.DeleteConsumer(within(t, patience), "jobs", "jobs") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, natslease.QueueConfig{})
			publish(t, b.queue, 2)
			leases := reserve(t, b.queue, 2)
			require.NoError(t, remove(t, b))
			started := time.Now()
			for _, r := range settle(t, b.queue, natslease.Ack, item(leases[0]), item(leases[1])) {
				require.Equal(t, natslease.Gone, r.Status)
				requireCode(t, r.Err, natslease.CodeLeaseGone, natslease.OutcomeRejected)
			}
			require.Less(t, time.Since(started), 3*time.Second)
			requireCode(t, leases[0].Nak(within(t, patience), 0), natslease.CodeLeaseGone, natslease.OutcomeRejected)
		})
	}
}

// A lease of a stream that was deleted settles nothing of one that was made anew and counts from 1 again.
func TestPromise6AckOfAQueueThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	for name, another := range map[string]bool{"by this process": false, "by another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, natslease.QueueConfig{})
			publish(t, b.queue, 1)
			old := reserve(t, b.queue, 1)[0]
			require.Equal(t, natslease.Settled, ack(within(t, patience), b.queue, old.AckSubject).Status)
			maker := b.queue
			if another {
				maker = named(t, connectTo(t, b.server.URL()), natslease.QueueConfig{})
			}
			_, err := maker.Delete(within(t, patience))
			require.NoError(t, err)
			older := 2100 * time.Millisecond // than the clocks of two servers may differ
			if another {
				older = 5 * time.Second // as long as the old one is remembered
			}
			time.Sleep(time.Until(old.Published.Add(older)))
			_, err = maker.Ensure(within(t, patience), natslease.ConflictError)
			require.NoError(t, err)
			publish(t, b.queue, 1)
			fresh := reserve(t, b.queue, 1)[0]
			require.Equal(t, old.Seq, fresh.Seq)
			for _, kind := range []natslease.SettleKind{natslease.Ack, natslease.Nak, natslease.Release, natslease.Extend, natslease.Term} {
				for _, r := range settle(t, b.queue, kind, natslease.SettleItem{AckSubject: old.AckSubject}) {
					require.Equal(t, natslease.Gone, r.Status, "%s", kind)
					requireCode(t, r.Err, natslease.CodeLeaseGone, natslease.OutcomeRejected)
				}
			}
			info, err := b.queue.Info(within(t, patience))
			require.NoError(t, err)
			require.Equal(t, uint64(1), info.NumAckPending)
			require.Equal(t, natslease.Settled, ack(within(t, patience), b.queue, fresh.AckSubject).Status)
		})
	}
}

// Unknown is what remains when the server says nothing.
func TestPromise6AckThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	p := natstest.StartProcess(t, natstest.Newest)
	c := newClient(t, natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: time.Minute})
	q := existing(t, c, natslease.QueueConfig{})
	publish(t, q, 2)
	leases := reserve(t, q, 2)
	p.Freeze()
	results, err := q.Settle(within(t, 200*time.Millisecond), natslease.Settlement{Kind: natslease.Ack},
		[]natslease.SettleItem{item(leases[0]), {AckSubject: "forged"}, item(leases[1])})
	require.NoError(t, err)
	require.Equal(t, natslease.Unknown, results[0].Status)
	requireCode(t, results[0].Err, natslease.CodeDeadline, natslease.OutcomeUnknown)
	require.NotEmpty(t, results[0].Err.Explain())
	require.Equal(t, natslease.Invalid, results[1].Status)
	require.Equal(t, natslease.Unknown, results[2].Status)
	p.Thaw()
	for _, r := range settle(t, q, natslease.Ack, item(leases[0]), item(leases[1])) {
		require.Equal(t, natslease.Settled, r.Status)
	}
	require.Equal(t, uint64(1), c.Stats().Generation)
}

// Past its time a lease may be somebody else's: an ack is still sent, and marked late; the rest is refused here.
func TestPromise6AckAfterTheLeaseRanOut(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Second})
	publish(t, b.queue, 1)
	held := reserve(t, b.queue, 1)[0]
	require.WithinDuration(t, time.Now().Add(time.Second), held.Expires, 200*time.Millisecond)
	again := reserve(t, b.queue, 1)[0]
	require.Equal(t, 2, again.Attempt)
	for _, kind := range []natslease.SettleKind{natslease.Nak, natslease.Release, natslease.Extend, natslease.Term} {
		r := settle(t, b.queue, kind, item(held))[0]
		require.Equal(t, natslease.Expired, r.Status, kind)
		requireCode(t, r.Err, natslease.CodeLeaseExpired, natslease.OutcomeRejected)
	}
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(1), info.NumAckPending, "the new holder still has it")
	require.Equal(t, natslease.SettleResult{Status: natslease.Settled, Late: true}, settle(t, b.queue, natslease.Ack, item(held))[0])
	info, err = b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.Messages)
}

func TestPromise6AckWaitIsTheServers(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: 5 * time.Second})
	another := named(t, connectTo(t, b.server.URL()), natslease.QueueConfig{AckWait: time.Hour})
	publish(t, b.queue, 1)
	require.WithinDuration(t, time.Now().Add(5*time.Second), reserve(t, another, 1)[0].Expires, time.Second)
}

func TestPromise6NakReleaseTerm(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxDeliver: 3})
	publish(t, b.queue, 1)
	l := reserve(t, b.queue, 1)[0]
	require.NoError(t, l.Nak(within(t, patience), 300*time.Millisecond))
	naked := time.Now()
	requireEmpty(t, b.queue)
	l = reserve(t, b.queue, 1)[0]
	require.GreaterOrEqual(t, time.Since(naked), 250*time.Millisecond)
	require.Equal(t, 2, l.Attempt)
	require.NoError(t, l.Release(within(t, patience)))
	for range 5 { // more often than deliveries are left
		l = reserve(t, b.queue, 1)[0]
		require.Equal(t, "0", string(l.Data))
		require.NoError(t, l.Release(within(t, patience)))
	}
	l = reserve(t, b.queue, 1)[0]
	require.NoError(t, l.Term(within(t, patience), "it cannot be read"))
	requireEmpty(t, b.queue)
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.NumAckPending)
	require.Zero(t, info.Messages)
}

func TestPromise6ExtendAndKeep(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Second})
	publish(t, b.queue, 3)
	leases := reserve(t, b.queue, 3)
	extended, kept, left := leases[0], leases[1], leases[2]
	require.NoError(t, b.queue.Keep(kept.AckSubject, 10*time.Second))
	require.Equal(t, 1, b.client.Stats().Kept)
	first := extended.Expires
	time.Sleep(700 * time.Millisecond)
	require.NoError(t, extended.Extend(within(t, patience)))
	require.True(t, extended.Expires.After(first.Add(500*time.Millisecond)))

	again := reserve(t, b.queue, 1)[0]
	require.Equal(t, left.Data, again.Data, "only the lease that was left alone is given out again")
	require.NoError(t, again.Ack(within(t, patience)))
	require.NoError(t, extended.Ack(within(t, patience)))
	time.Sleep(time.Until(kept.Expires) + time.Second)
	requireEmpty(t, b.queue)
	require.Equal(t, natslease.Settled, ack(within(t, patience), b.queue, kept.AckSubject).Status)
	require.Zero(t, b.client.Stats().Kept)
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.Messages)
}

// Keeping begins late in a lease's time: it has to begin at once.
func TestPromise6KeepLate(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Second})
	publish(t, b.queue, 1)
	l := reserve(t, b.queue, 1)[0]
	time.Sleep(700 * time.Millisecond)
	require.NoError(t, b.queue.Keep(l.AckSubject, 10*time.Second))
	time.Sleep(time.Until(l.Expires) + 300*time.Millisecond)
	requireEmpty(t, b.queue)
	require.Equal(t, natslease.Settled, ack(within(t, patience), b.queue, l.AckSubject).Status)
}

// A lease of which it is known when it runs out is extended only when that comes near; one of which it is not, at once.
func TestPromise6KeepAsksNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: 3 * time.Second})
	extensions := make(chan *nats.Msg, 10)
	nc := natstest.Connect(t, b.server.URL())
	_, err := nc.ChanSubscribe("$JS.ACK.jobs.>", extensions)
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	publish(t, b.queue, 2)
	leases := reserve(t, b.queue, 2)
	started := time.Now()
	require.NoError(t, leases[0].Keep(time.Minute))
	require.NoError(t, b.queue.Keep(leases[1].AckSubject, time.Minute))
	m := <-extensions
	require.Equal(t, leases[1].AckSubject, m.Subject)
	require.Less(t, time.Since(started), 500*time.Millisecond)
	<-extensions
	require.Greater(t, time.Since(started), 700*time.Millisecond)
}

// A lease that is kept while its holder gives signs of life runs out once they end.
func TestPromise6KeepBeating(t *testing.T) {
	t.Parallel()
	const heartbeat = time.Second
	b := setup(t, natslease.QueueConfig{AckWait: 600 * time.Millisecond})
	publish(t, b.queue, 2)
	leases := reserve(t, b.queue, 2)
	for _, l := range leases {
		item := natslease.SettleItem{AckSubject: l.AckSubject, Expires: l.Expires}
		require.NoError(t, b.queue.KeepBeating(item, time.Minute, heartbeat))
	}
	beats := time.NewTicker(heartbeat / 10)
	defer beats.Stop()
	for end := time.Now().Add(3 * heartbeat); time.Now().Before(end); <-beats.C {
		b.queue.Beat()
		requireEmpty(t, b.queue)
	}
	// From now on only one of them is at work.
	deadline := time.Now().Add(patience)
	var again []*natslease.Lease
	for len(again) == 0 {
		require.True(t, time.Now().Before(deadline))
		b.queue.Beat(leases[0].AckSubject)
		var err error
		again, err = b.queue.Reserve(within(t, patience), 2, 20*time.Millisecond)
		require.NoError(t, err)
	}
	require.Len(t, again, 1)
	require.Equal(t, leases[1].Seq, again[0].Seq)
	require.EqualValues(t, 1, b.client.Stats().Kept)
	require.Error(t, b.queue.KeepBeating(natslease.SettleItem{AckSubject: again[0].AckSubject}, time.Minute, -1))
}
