package fleet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/fleet"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func (s site) flush(t testing.TB) {
	t.Helper()
	s.Flush(within(t, patience))
}

func settle(t testing.TB, q *natslease.Queue, s natslease.Settlement, leases ...*natslease.Lease) {
	t.Helper()
	items := make([]natslease.SettleItem, len(leases))
	for i, l := range leases {
		items[i] = natslease.SettleItem{AckSubject: l.AckSubject, Expires: l.Expires, Lease: l}
	}
	results, err := q.Settle(within(t, patience), s, items)
	require.NoError(t, err)
	for _, r := range results {
		require.Equal(t, natslease.Settled, r.Status, "%v", r.Err)
	}
}

func TestWhoHasATaskAndWhatHappenedToIt(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	a, b, operator := open(t, url, fleet.Config{}), open(t, url, fleet.Config{}), open(t, url, fleet.Config{})
	a.ensure(t)
	ma, mb := a.join(t, gpu("0")), b.join(t, gpu("1"))
	a.publish(t, 5)
	began := time.Now()

	leases := a.reserve(t, 5)
	settle(t, a.queue, natslease.Settlement{Kind: natslease.Ack}, leases[0])
	settle(t, a.queue, natslease.Settlement{Kind: natslease.Nak, Reason: "out of memory"}, leases[1])
	settle(t, a.queue, natslease.Settlement{Kind: natslease.Release}, leases[2])
	settle(t, a.queue, natslease.Settlement{Kind: natslease.Term, Reason: "no image"}, leases[3])
	again := b.reserve(t, 2)
	a.flush(t)
	b.flush(t)

	task := func(id string) *fleet.History {
		h, err := operator.Task(within(t, patience), "job_1", id, 0)
		require.NoError(t, err)
		require.NotNil(t, h)
		assert.Equal(t, id, h.ID)
		return h
	}
	kinds := func(h *fleet.History) []fleet.EventKind {
		var found []fleet.EventKind
		for _, e := range h.Events {
			found = append(found, e.Kind)
			assert.WithinDuration(t, began, e.At, 10*time.Second)
		}
		return found
	}
	for id, want := range map[string]struct {
		state  fleet.State
		holder *fleet.Member
		kinds  []fleet.EventKind
	}{
		"task-1": {fleet.StateDone, nil, []fleet.EventKind{fleet.Reserved, fleet.Acked}},
		"task-2": {fleet.StateLeased, mb, []fleet.EventKind{fleet.Reserved, fleet.Naked, fleet.Reserved}},
		"task-3": {fleet.StateLeased, mb, []fleet.EventKind{fleet.Reserved, fleet.Released, fleet.Reserved}},
		"task-4": {fleet.StateDead, nil, []fleet.EventKind{fleet.Reserved, fleet.Termed}},
		"task-5": {fleet.StateLeased, ma, []fleet.EventKind{fleet.Reserved}},
	} {
		h := task(id)
		assert.Equal(t, want.state, h.State, id)
		assert.Equal(t, want.kinds, kinds(h), id)
		if want.holder == nil {
			assert.Nil(t, h.Holder, id)
			continue
		}
		require.NotNil(t, h.Holder, id)
		assert.Equal(t, want.holder.Identity(), *h.Holder)
		assert.Equal(t, want.holder.Epoch(), h.Epoch)
		assert.WithinDuration(t, began.Add(30*time.Second), h.Until, 10*time.Second, id)
	}
	assert.Equal(t, "out of memory", task("task-2").Events[1].Reason)
	assert.Equal(t, 2, task("task-2").Events[2].Attempt)
	bySeq, err := operator.Task(within(t, patience), "job_1", "", leases[4].Seq)
	require.NoError(t, err)
	assert.Equal(t, task("task-5"), bySeq)
	for _, unknown := range []string{"task-6", ""} {
		h, err := operator.Task(within(t, patience), "job_1", unknown, 0)
		require.NoError(t, err)
		assert.Nil(t, h)
	}

	all, err := operator.Histories(within(t, patience), "job_1", 0)
	require.NoError(t, err)
	require.Len(t, all, 5)
	newest, err := operator.Histories(within(t, patience), "job_1", 2)
	require.NoError(t, err)
	assert.Equal(t, all[3:], newest)

	holders, err := operator.Holders(within(t, patience), "job_1")
	require.NoError(t, err)
	require.Len(t, holders, 2)
	counts := make(map[fleet.Identity][4]int)
	for _, h := range holders {
		counts[h.Worker] = [4]int{h.Holding, h.Took, h.Done, h.Failed}
	}
	assert.Equal(t, map[fleet.Identity][4]int{gpu("0"): {1, 5, 1, 2}, gpu("1"): {2, 2, 0, 0}}, counts)

	settle(t, b.queue, natslease.Settlement{Kind: natslease.Ack}, again...)
	b.flush(t)
	workers, err := operator.Workers(within(t, patience))
	require.NoError(t, err)
	require.Len(t, workers, 2)
	assert.Equal(t, []int{5, 1, 2}, []int{workers[0].Reserved, workers[0].Done, workers[0].Failed})
	assert.Equal(t, "task-5", workers[0].LastTask)
	assert.InDelta(t, 2/60., workers[1].Rate, 1e-9)
	require.NoError(t, ma.Update(within(t, patience), fleet.Details{Version: "2"})) // a sign of life at once
	require.Eventually(t, func() bool {
		workers, err = operator.Workers(within(t, patience))
		return err == nil && workers[0].Version == "2"
	}, patience, 10*time.Millisecond)
	assert.Equal(t, map[string]int{"job_1": 1}, workers[0].Holding)
}

func TestNothingIsKnownWhereNothingWasRecorded(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Start(t).URL(), fleet.Config{})
	workers, err := s.Workers(within(t, patience))
	require.NoError(t, err)
	assert.Empty(t, workers)
	holders, err := s.Holders(within(t, patience), "job_1")
	require.NoError(t, err)
	assert.Empty(t, holders)
	task, err := s.Task(within(t, patience), "job_1", "task-1", 0)
	require.NoError(t, err)
	assert.Nil(t, task)
	for _, name := range []string{"", "a.b", ">", "a b"} {
		_, err = s.Holders(within(t, patience), name)
		assert.Equal(t, natslease.CodeConfig, natslease.CodeOf(err), "%q", name)
	}
}

func TestWhatAServerRecordsForItsWorkers(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Start(t).URL(), fleet.Config{})
	s.ensure(t)
	s.publish(t, 2)
	r, err := s.Register(within(t, patience), gpu("0"), fleet.Details{})
	require.NoError(t, err)
	leases := s.reserve(t, 2)
	subjects := []string{leases[0].AckSubject, leases[1].AckSubject}
	event := fleet.Event{Kind: fleet.Reserved, Worker: gpu("0"), Epoch: r.Epoch, IDs: []string{"task-1", "task-2"}}
	require.NoError(t, s.Record(event, subjects))
	require.NoError(t, s.Record(fleet.Event{Kind: fleet.Acked, Worker: gpu("0"), Epoch: r.Epoch}, subjects[:1]))
	s.flush(t)
	workers, err := s.Workers(within(t, patience))
	require.NoError(t, err)
	require.Len(t, workers, 1)
	assert.Equal(t, map[string]int{"job_1": 1}, workers[0].Holding)
	assert.Equal(t, []int{2, 1}, []int{workers[0].Reserved, workers[0].Done})

	for _, wrong := range []error{
		s.Record(fleet.Event{Kind: "eat", Worker: gpu("0")}, subjects),
		s.Record(fleet.Event{Kind: fleet.Acked}, subjects),
		s.Record(fleet.Event{Kind: fleet.Reserved, Worker: gpu("0"), IDs: []string{"1"}}, subjects),
		s.Record(fleet.Event{Kind: fleet.Acked, Worker: gpu("0")}, []string{"$JS.API.STREAM.PURGE.job_1"}),
	} {
		assert.Error(t, wrong)
	}
}

// Many small batches become few messages, in which the order of each task's events stays.
func TestEventsAreWrittenTogether(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	s := open(t, server.URL(), fleet.Config{})
	s.ensure(t)
	s.join(t, gpu("0"))
	const n = 200
	s.publish(t, n)
	for i := range n {
		l := s.reserve(t, 1)[0]
		if i%10 == 0 {
			settle(t, s.queue, natslease.Settlement{Kind: natslease.Release}, l)
			l = s.reserve(t, 1)[0]
		}
		settle(t, s.queue, natslease.Settlement{Kind: natslease.Ack}, l)
	}
	s.flush(t)
	written, dropped := s.Stats()
	assert.Zero(t, dropped)
	assert.Less(t, written, uint64(n/10))
	all, err := s.Histories(within(t, patience), "job_1", 0)
	require.NoError(t, err)
	acked := 0
	for _, h := range all {
		if h.State == fleet.StateDone {
			acked++
			assert.Equal(t, fleet.Reserved, h.Events[0].Kind)
		}
		for i := 1; i < len(h.Events); i++ {
			assert.Equal(t, h.Events[i].Kind != fleet.Reserved, h.Events[i-1].Kind == fleet.Reserved, "%+v", h.Events)
		}
	}
	assert.Equal(t, n, acked)
}

// Where the stream of events is away, or JetStream answers for nothing but the queue, tasks go their way.
func TestEventsAreDroppedRatherThanDelay(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	s := open(t, server.URL(), fleet.Config{})
	s.ensure(t)
	s.join(t, gpu("0"))
	js := natstest.JetStream(t, server.URL())
	// Another stream has the subjects: this one can neither be written to nor be made.
	_, err := js.CreateStream(within(t, patience), jetstream.StreamConfig{Name: "other", Subjects: []string{"natslease_events.>"}, MaxMsgSize: 1})
	require.NoError(t, err)
	s.publish(t, 51)
	for range 50 {
		started := time.Now()
		settle(t, s.queue, natslease.Settlement{Kind: natslease.Ack}, s.reserve(t, 1)...)
		assert.Less(t, time.Since(started), time.Second)
	}
	s.flush(t)
	written, dropped := s.Stats()
	assert.Zero(t, written)
	assert.Positive(t, dropped)

	// While it is known to be away nothing is even tried.
	settle(t, s.queue, natslease.Settlement{Kind: natslease.Ack}, s.reserve(t, 1)...)
	_, later := s.Stats()
	assert.Greater(t, later, dropped)
}

func TestEventsOfALostConnection(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server.Addr())
	s := open(t, proxy.URL(), fleet.Config{})
	s.ensure(t)
	s.join(t, gpu("0"))
	s.publish(t, 1)
	s.reserve(t, 1)
	proxy.Pause()
	proxy.Cut()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	started := time.Now()
	s.Close(ctx) // returns in time
	assert.Less(t, time.Since(started), 3*time.Second)
	proxy.Resume()
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Start(t).URL(), fleet.Config{})
	s.ensure(t)
	s.join(t, gpu("0"))
	s.publish(t, 4)
	var leases []*natslease.Lease
	for range 4 {
		leases = append(leases, s.reserve(t, 1)...)
		s.flush(t)
	}
	var seen []*fleet.Event
	require.NoError(t, s.Events(within(t, patience), "", time.Time{}, func(e *fleet.Event) bool {
		seen = append(seen, e)
		return len(seen) < 3
	}))
	require.Len(t, seen, 3)
	for i, e := range seen {
		assert.Equal(t, []uint64{leases[i].Seq}, e.Seqs)
		assert.Equal(t, []string{fmt.Sprintf("task-%d", i+1)}, e.IDs)
		assert.Equal(t, "job_1", e.Stream)
		assert.Equal(t, gpu("0"), e.Worker)
	}
	later := 0
	require.NoError(t, s.Events(within(t, patience), "job_1", seen[2].At, func(*fleet.Event) bool {
		later++
		return true
	}))
	assert.Equal(t, 2, later)
}
