package natslease_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// pullCounter counts the pulls that arrive at the server.
func pullCounter(t *testing.T, url string, options ...nats.Option) *atomic.Int64 {
	t.Helper()
	nc := natstest.Connect(t, url, options...)
	pulls := new(atomic.Int64)
	_, err := nc.Subscribe("$JS.API.CONSUMER.MSG.NEXT.>", func(*nats.Msg) { pulls.Add(1) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return pulls
}

// poll has threads ask the queue as fast as they can for a while, and returns how often they were answered.
func poll(t *testing.T, q *natslease.Queue, threads int, wait, during time.Duration) int64 {
	t.Helper()
	var answers atomic.Int64
	var wg sync.WaitGroup
	ctx := within(t, patience)
	end := time.Now().Add(during)
	for range threads {
		wg.Go(func() {
			for time.Now().Before(end) {
				leases, err := q.Reserve(ctx, 1, wait)
				if err != nil || len(leases) > 0 {
					t.Errorf("reserve: %d leases, %v", len(leases), err)
					return
				}
				answers.Add(1)
			}
		})
	}
	wg.Wait()
	return answers.Load()
}

// Any number of threads that poll an empty queue cost the server one pull per interval.
func TestPromise11AFloodStaysSmall(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{0, 10 * time.Millisecond, 400 * time.Millisecond} {
		t.Run(wait.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, natslease.QueueConfig{})
			pulls := pullCounter(t, b.server.URL())
			started := time.Now()
			answers := poll(t, b.queue, 64, wait, 2*time.Second)
			intervals := int64(time.Since(started)/(250*time.Millisecond)) + 2 // the first pull is made blindly
			require.LessOrEqual(t, pulls.Load(), intervals)
			require.Positive(t, pulls.Load())
			t.Logf("%d answers, %d pulls", answers, pulls.Load())
		})
	}
}

// Where the subscription is not permitted the calls wait for the next shared pull.
func TestPromise11AFloodStaysSmallWithoutTheSubscription(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(
		&server.User{Username: "all", Password: "p"},
		&server.User{Username: "deaf", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}},
	))
	all := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "all", Password: "p"})
	full := existing(t, all, natslease.QueueConfig{})
	pulls := pullCounter(t, s.URL(), nats.UserInfo("all", "p"))
	deaf := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "deaf", Password: "p"})
	q := named(t, deaf, natslease.QueueConfig{})
	poll(t, q, 1, 0, time.Millisecond) // finds out what is not permitted
	poll(t, q, 1, 0, time.Millisecond)
	before := pulls.Load()
	started := time.Now()
	poll(t, q, 64, 0, 2*time.Second)
	require.LessOrEqual(t, pulls.Load()-before, int64(time.Since(started)/(250*time.Millisecond))+2)
	require.Equal(t, uint64(1), deaf.Stats().Generation, "the session survives the refusal")
	publish(t, full, 1)
	leases, err := q.Reserve(within(t, patience), 1, 0)
	require.NoError(t, err)
	require.Len(t, leases, 1)
}

// "Empty" is answered from memory only while it is true: what was published before the call is found by it.
func TestPromise11EmptyIsNeverUntrue(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	ctx := within(t, 2*patience)
	stop := make(chan struct{})
	var others sync.WaitGroup
	elsewhere := existing(t, b.client, natslease.QueueConfig{Stream: "other"})
	for range 4 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := elsewhere.Reserve(ctx, 1, 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 500 {
		for range i % 3 { // first pull, listening pull, memory
			requireEmpty(t, b.queue)
		}
		// Another connection, whose word that it is published may be here before the message.
		_, err := b.js.Publish(ctx, "jobs", fmt.Append(nil, i))
		require.NoError(t, err)
		leases, err := b.queue.Reserve(ctx, 1, 0)
		require.NoError(t, err)
		require.Len(t, leases, 1, "round %d", i)
		require.Equal(t, fmt.Sprint(i), string(leases[0].Data))
		require.NoError(t, leases[0].Ack(ctx))
	}
	close(stop)
	others.Wait()
}

// Nor where the publisher, the queue and the taker are with different servers.
func TestPromise11EmptyIsNeverUntrueInACluster(t *testing.T) {
	t.Parallel()
	servers := natstest.StartCluster(t, 3)
	ctx := within(t, 3*patience)
	for k := range servers {
		c := connectTo(t, servers[k].URL())
		q := existing(t, c, natslease.QueueConfig{Stream: fmt.Sprint("jobs_", k)})
		info, err := q.Info(ctx)
		require.NoError(t, err)
		js := natstest.JetStream(t, servers[(k+1)%len(servers)].URL())
		for i := range 100 {
			take := func() []*natslease.Lease {
				if i%2 == 0 {
					return reserveAny(t, c, []*natslease.Queue{q}, 1, 0).Leases
				}
				leases, err := q.Reserve(ctx, 1, 0)
				require.NoError(t, err)
				return leases
			}
			for range i % 4 {
				require.Empty(t, take())
			}
			_, err := js.Publish(ctx, q.Config().Subject, nil)
			require.NoError(t, err)
			leases := take()
			require.Len(t, leases, 1, "round %d, queue on %q, taker on node%d", i, info.Leader, k)
			require.NoError(t, leases[0].Ack(ctx))
		}
	}
}

// A publish ends the pause for those who wait, at once.
func TestPromise11APublishEndsThePause(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	for range 3 {
		requireEmpty(t, b.queue)
	}
	atOnce(t, func(ctx context.Context) {
		published := make(chan error, 1)
		time.AfterFunc(20*time.Millisecond, func() {
			_, err := b.js.Publish(ctx, "jobs", nil)
			published <- err
		})
		leases, err := b.queue.Reserve(ctx, 1, 100*time.Millisecond)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.NoError(t, <-published)
	})
}

// A frozen server's queue is not "empty".
func TestPromise11MemoryDoesNotHideAnOutage(t *testing.T) {
	t.Parallel()
	p := natstest.StartProcess(t, natstest.Newest)
	c := connectTo(t, p.URL())
	q := existing(t, c, natslease.QueueConfig{})
	for range 3 {
		requireEmpty(t, q)
	}
	p.Freeze()
	_, err := q.Reserve(within(t, 100*time.Millisecond), 1, 0)
	require.Error(t, err)
	p.Thaw()
}

// Leases that are out at max_ack_pending are told from an empty queue, and an ack here ends that at once.
func TestPromise11Saturated(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxAckPending: 2})
	publish(t, b.queue, 3)
	held := reserve(t, b.queue, 2)
	pulls := pullCounter(t, b.server.URL())
	started := time.Now()
	for time.Since(started) < time.Second {
		_, err := b.queue.Reserve(within(t, patience), 1, 0)
		requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
		require.Positive(t, err.(*natslease.Error).RetryAfter)
	}
	require.LessOrEqual(t, pulls.Load(), int64(time.Since(started)/(250*time.Millisecond))+2)
	require.NoError(t, held[0].Ack(within(t, patience)))
	require.Len(t, reserve(t, b.queue, 1), 1)
}

// A call that got less than it asked for leaves no pull behind for the rest, whose tasks would come to nobody.
func TestPromise11NoPullForThoseWhoHaveLeft(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	pulls := pullCounter(t, b.server.URL())
	for range 10 {
		publish(t, b.queue, 3)
		leases, err := b.queue.Reserve(within(t, patience), 10, 5*time.Second)
		require.NoError(t, err)
		require.NotEmpty(t, leases)
		for len(leases) < 3 {
			leases = append(leases, reserve(t, b.queue, 1)...)
		}
		info, err := b.queue.Info(within(t, patience))
		require.NoError(t, err)
		require.Zero(t, info.NumWaiting)
	}
	require.Zero(t, b.client.Stats().LateMessages)
	require.Less(t, pulls.Load(), int64(15))
}

// What this process gives back is found by its next call.
func TestPromise11OwnNakEndsThePause(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	for range 20 {
		publish(t, b.queue, 1)
		lease := reserve(t, b.queue, 1)[0]
		for range 3 {
			requireEmpty(t, b.queue)
		}
		require.NoError(t, lease.Nak(within(t, patience), 0))
		leases, err := b.queue.Reserve(within(t, patience), 1, 0)
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.NoError(t, leases[0].Ack(within(t, patience)))
	}
}

// Calls that wait share pulls, and nobody waits although there is something for him.
func TestPromise11SharedPulls(t *testing.T) {
	t.Parallel()
	const takers, tasks = 32, 2000
	b := setup(t, natslease.QueueConfig{MaxAckPending: 10_000})
	pulls := pullCounter(t, b.server.URL())
	ctx := within(t, patience)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for i := range takers {
		wg.Go(func() {
			for taken.Load() < tasks {
				leases, err := b.queue.Reserve(ctx, 1+i%7, 300*time.Millisecond)
				if err != nil {
					t.Error(err)
					return
				}
				taken.Add(int64(len(leases)))
			}
		})
	}
	require.Eventually(t, func() bool { return b.client.Stats().InFlight == takers }, patience, time.Millisecond)
	publish(t, b.queue, tasks)
	wg.Wait()
	require.Equal(t, int64(tasks), taken.Load())
	require.Zero(t, b.client.Stats().LateMessages)
	t.Logf("%d pulls for %d tasks and %d takers", pulls.Load(), tasks, takers)
}

// Who finds max_ack_pending reached is told so at once, however little he wants to wait, and leaves no pull behind.
func TestPromise11SaturatedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxAckPending: 2})
	publish(t, b.queue, 3)
	reserve(t, b.queue, 2)
	var took []time.Duration
	for range 5 {
		elsewhere := connectTo(t, b.server.URL()) // a process that knows nothing of the queue
		_, err := elsewhere.Ping(within(t, patience))
		require.NoError(t, err)
		started := time.Now()
		_, err = named(t, elsewhere, natslease.QueueConfig{}).Reserve(within(t, patience), 1, 0)
		took = append(took, time.Since(started))
		requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
		require.Positive(t, err.(*natslease.Error).RetryAfter)
	}
	require.Less(t, slices.Min(took), 100*time.Millisecond, "the machine's other work aside")
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.NumWaiting)
}

// However many calls come, a bounded number is in flight; who cannot get a place among them is told so within
// MaxQueueWait, and when to come again.
func TestPromise11Busy(t *testing.T) {
	t.Parallel()
	const limit, callers, longest = 4, 100, 50 * time.Millisecond
	s := natstest.Start(t)
	c := newClient(t, natslease.Config{Servers: []string{s.URL()}, MaxInFlight: limit, MaxQueueWait: longest})
	q := existing(t, c, natslease.QueueConfig{})
	ctx, cancel := context.WithCancel(within(t, patience))
	var holders sync.WaitGroup
	for range limit {
		holders.Go(func() { _, _ = q.Reserve(ctx, 1, patience/2) })
	}
	require.Eventually(t, func() bool { return c.Stats().InFlight == limit }, patience, time.Millisecond)
	var late natstest.Lateness
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			late.Measure(time.Now().Add(longest), func() {
				_, err := q.Reserve(within(t, patience), 1, 0)
				if natslease.CodeOf(err) != natslease.CodeBusy || err.(*natslease.Error).Outcome != natslease.OutcomeNotSent {
					t.Error(err)
					return
				}
				if after := err.(*natslease.Error).RetryAfter; after <= 0 || after > time.Second {
					t.Errorf("retry after %s", after)
				}
				if !strings.Contains(err.Error(), "MaxInFlight") {
					t.Error(err)
				}
			})
		})
	}
	for range 20 {
		require.Equal(t, limit, c.Stats().InFlight)
	}
	wg.Wait()
	late.Assert(t)
	_, err := c.Ping(within(t, patience)) // other calls have places of their own
	require.NoError(t, err)
	cancel()
	holders.Wait()
	requireEmpty(t, q)
}

// What is known of a queue does not outlive its use: a process sees many of them.
func TestPromise11QueuesAreForgotten(t *testing.T) {
	t.Parallel()
	c := connectTo(t, natstest.Start(t).URL())
	for i := range 1000 {
		named(t, c, natslease.QueueConfig{Stream: fmt.Sprint("job_", i)})
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		return c.Stats().Queues <= 1
	}, patience, time.Millisecond)
}
