package natslease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// advisories counts the tasks that the server has declared dead.
func advisories(t *testing.T, b bundle) func() int {
	t.Helper()
	nc := natstest.Connect(t, b.server.URL())
	sub, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return func() int {
		require.NoError(t, nc.Flush())
		n, _, err := sub.Pending()
		require.NoError(t, err)
		return n
	}
}

// Tasks that arrive after their call gave up are not lost, come back soon, and do not wear out, even with two
// deliveries each, as the application has it.
func TestPromise5NothingLostByCallsThatGiveUp(t *testing.T) {
	t.Parallel()
	const tasks = 400
	b := setup(t, natslease.QueueConfig{MaxDeliver: 2, AckWait: time.Minute})
	dead := advisories(t, b)
	ctx := within(t, 3*patience)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := make(map[string]int)
	finish := func(leases []*natslease.Lease) {
		for _, l := range leases {
			if err := l.Ack(ctx); err != nil {
				t.Error(err)
			}
			mu.Lock()
			done[string(l.Data)]++
			mu.Unlock()
		}
	}
	finished := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(done)
	}
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				call, cancel := context.WithCancel(ctx)
				timer := time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, cancel)
				leases, err := b.queue.Reserve(call, 5, time.Second)
				if err != nil && natslease.CodeOf(err) != natslease.CodeCanceled {
					t.Error(err)
				}
				timer.Stop()
				cancel()
				finish(leases)
			}
		})
	}
	for i := range tasks {
		_, err := b.js.Publish(ctx, "jobs", fmt.Append(nil, i))
		require.NoError(t, err)
	}
	started := time.Now()
	for finished() < tasks && time.Since(started) < 2*time.Second {
		time.Sleep(10 * time.Millisecond) // the takers go on giving up while the queue empties
	}
	close(stop)
	wg.Wait()
	started = time.Now()
	for finished() < tasks {
		leases, err := b.queue.Reserve(ctx, 10, time.Second)
		require.NoError(t, err)
		finish(leases)
		require.Less(t, time.Since(started), 5*time.Second, "%d of %d tasks are done: the others wait for ack_wait", finished(), tasks)
	}
	require.Len(t, done, tasks)
	for data, times := range done {
		require.Equal(t, 1, times, "task %s", data)
	}
	require.Zero(t, dead())
	info, err := b.queue.Info(ctx)
	require.NoError(t, err)
	require.Zero(t, info.Messages)
}

// A task that arrived for a call that is gone, and that nobody here takes, is with others within a second.
func TestPromise5NothingLostToAnotherProcess(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxDeliver: 1})
	dead := advisories(t, b)
	other := connectTo(t, b.server.URL())
	elsewhere := named(t, other, natslease.QueueConfig{})
	for i := range 5 {
		call, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := b.queue.Reserve(call, 1, 5*time.Second)
			ended <- err
		}()
		awaitPulls(t, b.queue, 1)
		cancel()
		requireCode(t, <-ended, natslease.CodeCanceled, natslease.OutcomeUnknown)
		_, err := b.js.Publish(within(t, patience), "jobs", fmt.Append(nil, i))
		require.NoError(t, err)
		published := time.Now()
		leases, err := elsewhere.Reserve(within(t, patience), 1, 5*time.Second)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.Equal(t, fmt.Sprint(i), string(leases[0].Data))
		require.Less(t, time.Since(published), 1200*time.Millisecond)
		require.NoError(t, leases[0].Ack(within(t, patience)))
	}
	require.Zero(t, dead())
}

// The next reserve in the same process gets it at once.
func TestPromise5NothingLostToTheNextCall(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxDeliver: 1})
	call, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := b.queue.Reserve(call, 1, 5*time.Second)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	cancel()
	require.Error(t, <-ended)
	publish(t, b.queue, 1)
	require.Eventually(t, func() bool { return b.client.Stats().LateMessages == 1 }, patience, time.Millisecond)
	atOnce(t, func(ctx context.Context) {
		leases, err := b.queue.Reserve(ctx, 1, 0)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.Equal(t, 1, leases[0].Attempt)
		require.WithinDuration(t, time.Now().Add(time.Minute), leases[0].Expires, 2*time.Second)
	})
}

// Closing the client gives back what had arrived and was not taken.
func TestPromise5NothingLostByClose(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxDeliver: 1})
	dead := advisories(t, b)
	closing := connectTo(t, b.server.URL())
	q := named(t, closing, natslease.QueueConfig{})
	call, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := q.Reserve(call, 3, time.Second)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	cancel()
	require.Error(t, <-ended)
	publish(t, b.queue, 3)
	require.NoError(t, closing.Close(within(t, patience)))
	atOnce(t, func(context.Context) { reserve(t, b.queue, 3) })
	require.Zero(t, dead())
}

// A killed process loses its leases only until ack_wait.
func TestPromise5NothingLostByAKill(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Second})
	p := natstest.NewProxy(t, b.server.Addr())
	doomed := connectTo(t, p.URL())
	publish(t, b.queue, 3)
	held := reserve(t, named(t, doomed, natslease.QueueConfig{}), 3)
	p.Cut()
	leases := reserve(t, b.queue, 3)
	for _, l := range leases {
		require.Equal(t, 2, l.Attempt)
	}
	// The server's clock of a lease starts when it sends the task, this process's when the task arrives.
	require.WithinDuration(t, held[0].Expires, time.Now(), 500*time.Millisecond)
}

// "Published" means accepted by the server: a retry after a lost answer stores nothing twice.
func TestPromise5NothingLostInPublish(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	p := natstest.NewProxy(t, b.server.Addr())
	c := connectTo(t, p.URL())
	q := named(t, c, natslease.QueueConfig{})
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	cut := p.CutBefore(natstest.FromServer, `"seq"`)
	report, err := q.Publish(within(t, patience), []natslease.Message{{Data: []byte("once"), ID: "17"}})
	require.NoError(t, err)
	<-cut
	require.Nil(t, report.Results[0].Err)
	require.True(t, report.Results[0].Duplicate, "the second try met the first")
	require.Equal(t, "17", report.Results[0].ID)
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(1), info.Messages)
}

// However often the connection is cut between a message and the server's word on it, the message is there once.
func TestPromise5NothingLostInPublishAThousandTimes(t *testing.T) {
	t.Parallel()
	const times = 1000
	b := setup(t, natslease.QueueConfig{MaxAckPending: 2 * times})
	p := natstest.NewProxy(t, b.server.Addr())
	c := connectTo(t, p.URL())
	q := named(t, c, natslease.QueueConfig{})
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	for i := range times {
		cut := p.CutBefore(natstest.FromServer, `"seq"`)
		report, err := q.Publish(within(t, patience), []natslease.Message{{Data: fmt.Append(nil, i)}})
		require.NoError(t, err)
		<-cut
		require.Nil(t, report.Results[0].Err, "%d", i)
		require.Equal(t, uint64(i+1), report.Results[0].Seq)
		require.True(t, report.Results[0].Duplicate, "it was stored before the cut")
	}
	require.Equal(t, uint64(times+1), c.Stats().Generation)
	for i, l := range reserve(t, b.queue, times) {
		require.Equal(t, fmt.Sprint(i), string(l.Data))
	}
	requireEmpty(t, b.queue)
}

// The connection is cut while the call waits for room, because as much is in flight as may be.
func TestPromise5NothingLostInAFullWindow(t *testing.T) {
	t.Parallel()
	const messages = 6000
	b := setup(t, natslease.QueueConfig{})
	p := natstest.NewProxy(t, b.server.Addr())
	c := newClient(t, natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: time.Minute})
	q := named(t, c, natslease.QueueConfig{})
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	p.Pause(natstest.FromServer)
	reports := make(chan natslease.PublishReport, 1)
	go func() {
		report, err := q.Publish(within(t, patience), make([]natslease.Message, messages))
		if err != nil {
			t.Error(err)
		}
		reports <- report
	}()
	stored := func() uint64 {
		info, err := b.queue.Info(within(t, patience))
		require.NoError(t, err)
		return info.Messages
	}
	require.Eventually(t, func() bool { return stored() == 4096 }, patience, time.Millisecond)
	p.Resume()
	p.Cut()
	report := <-reports
	require.Equal(t, messages, report.Accepted()+report.Duplicates(), "%+v", report.Failed())
	require.Equal(t, uint64(messages), stored())
}

// In the middle of many, with the connection cut again and again, every message that was reported accepted is there,
// once, and every other has an error.
func TestPromise5NothingLostInAWindow(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	p := natstest.NewProxy(t, b.server.Addr())
	c := connectTo(t, p.URL())
	q := named(t, c, natslease.QueueConfig{})
	stop := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-p.CutAfter(natstest.FromServer, 20_000+rand.IntN(100_000)):
			}
		}
	})
	reported := make(map[string]bool)
	for round := range 20 {
		messages := make([]natslease.Message, 1000)
		for i := range messages {
			messages[i].Data = fmt.Appendf(nil, "%d/%d", round, i)
		}
		report, err := q.Publish(within(t, patience), messages)
		if err != nil {
			continue // nothing was tried: the circuit breaker is open
		}
		require.Len(t, report.Results, len(messages))
		for i, r := range report.Results {
			switch {
			case r.Err == nil:
				require.NotZero(t, r.Seq, "message %s has neither a sequence nor an error", messages[i].Data)
				reported[string(messages[i].Data)] = true
			case r.Err.Outcome == natslease.OutcomeUnknown:
				reported[string(messages[i].Data)] = false
			}
		}
	}
	close(stop)
	cutter.Wait()
	stored := make(map[string]int)
	for {
		leases, err := b.queue.Reserve(within(t, patience), 500, 0)
		require.NoError(t, err)
		if len(leases) == 0 {
			break
		}
		items := make([]natslease.SettleItem, len(leases))
		for i, l := range leases {
			stored[string(l.Data)]++
			items[i].AckSubject = l.AckSubject
		}
		_, err = b.queue.Settle(within(t, patience), natslease.Settlement{Kind: natslease.Ack}, items)
		require.NoError(t, err)
	}
	for data, times := range stored {
		require.Equal(t, 1, times, data)
		_, known := reported[data]
		require.True(t, known, "%s was reported as not sent", data)
	}
	accepted := 0
	for data, certain := range reported {
		if certain {
			accepted++
			require.Equal(t, 1, stored[data], data)
		}
	}
	t.Logf("%d accepted, %d stored, %d connections", accepted, len(stored), p.Total())
	require.Positive(t, accepted)
}
