package natslease_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// many is a client with many empty queues: job_0, job_1, ...
func many(t testing.TB, n int) (bundle, []*natslease.Queue) {
	t.Helper()
	s := natstest.Start(t)
	b := bundle{server: s, client: connectTo(t, s.URL()), js: natstest.JetStream(t, s.URL())}
	return b, jobs(t, b.client, n, natslease.QueueConfig{})
}

// jobs makes the queues job_0, job_1, ...
func jobs(t testing.TB, c *natslease.Client, n int, cfg natslease.QueueConfig) []*natslease.Queue {
	t.Helper()
	queues := make([]*natslease.Queue, n)
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := k; i < n; i += 8 {
				cfg := cfg
				cfg.Stream, cfg.Storage = fmt.Sprint("job_", i), "memory"
				q, err := c.Queue(cfg)
				if err == nil {
					_, err = q.Ensure(within(t, patience), natslease.ConflictError)
				}
				if err != nil {
					t.Error(err)
				}
				queues[i] = q
			}
		})
	}
	wg.Wait()
	return queues
}

// strangers are the same queues for a process that knows nothing of them.
func strangers(t testing.TB, url string, queues []*natslease.Queue) (*natslease.Client, []*natslease.Queue) {
	t.Helper()
	c := connectTo(t, url)
	same := make([]*natslease.Queue, len(queues))
	for i, q := range queues {
		same[i] = named(t, c, natslease.QueueConfig{Stream: q.Config().Stream})
	}
	return c, same
}

func reserveAny(t testing.TB, c *natslease.Client, queues []*natslease.Queue, n int, wait time.Duration) natslease.AnyReport {
	t.Helper()
	report, err := c.ReserveAny(within(t, patience), queues, n, wait)
	require.NoError(t, err)
	require.LessOrEqual(t, len(report.Leases), n)
	require.Equal(t, len(report.Leases) == 0, report.RetryAfter > 0)
	return report
}

// takeAny takes exactly n, in as few calls as the server's speed allows.
func takeAny(t testing.TB, c *natslease.Client, queues []*natslease.Queue, n int) []*natslease.Lease {
	t.Helper()
	var leases []*natslease.Lease
	for len(leases) < n {
		report := reserveAny(t, c, queues, n-len(leases), 0)
		require.NotEmpty(t, report.Leases, "%d of %d: %v", len(leases), n, report.Errors)
		require.Empty(t, report.Missing)
		leases = append(leases, report.Leases...)
	}
	return leases
}

func TestReserveAnyTakesFromThoseThatHaveTasks(t *testing.T) {
	t.Parallel()
	b, queues := many(t, 100)
	for _, i := range []int{3, 50, 99} {
		publish(t, queues[i], 10)
	}
	for _, who := range []string{"who made them", "a stranger"} {
		c, queues := b.client, queues
		if who == "a stranger" {
			c, queues = strangers(t, b.server.URL(), queues)
		}
		of := make(map[string]int)
		for _, l := range takeAny(t, c, queues, 15) {
			of[l.Queue().Config().Stream]++
			require.Equal(t, l.Subject, l.Queue().Config().Subject)
			require.WithinDuration(t, time.Now().Add(time.Minute), l.Expires, 5*time.Second)
			require.NoError(t, l.Ack(within(t, patience)))
		}
		require.Subset(t, []string{"job_3", "job_50", "job_99"}, slices.Collect(maps.Keys(of)), who)
	}
	require.Empty(t, reserveAny(t, b.client, queues, 15, 0).Leases)
	for _, i := range []int{3, 50, 99} {
		publish(t, queues[i], 10)
	}
	takeAny(t, b.client, queues, 30)
}

// Never more than was asked for is taken, by however many takers, and everything once.
func TestReserveAnyTakesNoMoreThanAsked(t *testing.T) {
	t.Parallel()
	const jobs, tasks, takers = 40, 25, 8
	b, queues := many(t, jobs)
	for _, q := range queues {
		publish(t, q, tasks)
	}
	var mu sync.Mutex
	taken := make(map[string]int)
	var wg sync.WaitGroup
	for i := range takers {
		wg.Go(func() {
			for {
				n := 1 + i*3
				report, err := b.client.ReserveAny(within(t, patience), queues, n, 0)
				if err != nil || len(report.Leases) > n {
					t.Errorf("%d leases of %d, %v", len(report.Leases), n, err)
					return
				}
				if len(report.Leases) == 0 {
					return
				}
				mu.Lock()
				for _, l := range report.Leases {
					taken[fmt.Sprint(l.Subject, " ", string(l.Data))]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, taken, jobs*tasks)
	for task, times := range taken {
		require.Equal(t, 1, times, task)
	}
}

// Those that have tasks take turns, and the others are not forgotten meanwhile.
func TestReserveAnyStarvesNone(t *testing.T) {
	t.Parallel()
	b, queues := many(t, 60)
	publish(t, queues[0], 5000)
	publish(t, queues[1], 5000)
	of := make(map[string]int)
	call := func() {
		for _, l := range reserveAny(t, b.client, queues, 1, 0).Leases {
			of[l.Queue().Config().Stream]++
		}
	}
	// 20 calls, unless the server is slow to answer for one of them.
	for started := time.Now(); min(of["job_0"], of["job_1"]) < 10 && time.Since(started) < 2*time.Second; {
		call()
	}
	require.GreaterOrEqual(t, min(of["job_0"], of["job_1"]), 10, "%v", of)
	publish(t, queues[59], 1)
	calls := 0
	for started := time.Now(); of["job_59"] == 0 && time.Since(started) < 2*time.Second; calls++ {
		call()
	}
	require.Equal(t, 1, of["job_59"], "after %d calls", calls)
}

// Empty is never untrue: what was published, anywhere, before the call is found by it.
func TestReserveAnyEmptyIsNeverUntrue(t *testing.T) {
	t.Parallel()
	b, queues := many(t, 30)
	ctx := within(t, 2*patience)
	for i := range 300 {
		for range i % 4 {
			require.Empty(t, reserveAny(t, b.client, queues, 3, 0).Leases)
		}
		subject := fmt.Sprint("job_", i*7%len(queues))
		_, err := b.js.Publish(ctx, subject, fmt.Append(nil, i))
		require.NoError(t, err)
		leases := reserveAny(t, b.client, queues, 3, 0).Leases
		require.Len(t, leases, 1, "round %d", i)
		require.Equal(t, subject, leases[0].Subject)
		if i%5 == 0 { // own naks are found at once too
			require.NoError(t, leases[0].Nak(ctx, 0))
			leases = reserveAny(t, b.client, queues, 3, 0).Leases
			require.Len(t, leases, 1, "round %d", i)
		}
		require.NoError(t, leases[0].Ack(ctx))
	}
}

// The first task of any of the queues ends the wait: at once where it is listened for, else with the next pass.
func TestReserveAnyWaits(t *testing.T) {
	t.Parallel()
	b, queues := many(t, 50)
	c, queues := strangers(t, b.server.URL(), queues)
	var woken []time.Duration
	for i := range 10 {
		published := make(chan time.Time, 1)
		time.AfterFunc(50*time.Millisecond, func() {
			published <- time.Now()
			_, err := b.js.Publish(within(t, patience), fmt.Sprint("job_", i*5), nil)
			if err != nil {
				t.Error(err)
			}
		})
		leases := reserveAny(t, c, queues, 3, 10*time.Second).Leases
		require.Len(t, leases, 1)
		if took := time.Since(<-published); i >= 4 { // before it does not listen to all
			woken = append(woken, took)
		}
		require.NoError(t, leases[0].Ack(within(t, patience)))
	}
	require.Less(t, median(woken), 50*time.Millisecond)
	started := time.Now()
	require.Empty(t, reserveAny(t, c, queues, 3, 600*time.Millisecond).Leases)
	require.GreaterOrEqual(t, time.Since(started), 600*time.Millisecond)
	require.Less(t, time.Since(started), 2*time.Second)
}

// Tasks that come back because their holder vanished are found by the passes.
func TestReserveAnyFindsRedeliveries(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	c := connectTo(t, s.URL())
	queues := jobs(t, c, 20, natslease.QueueConfig{AckWait: time.Second})
	publish(t, queues[7], 1)
	elsewhere, same := strangers(t, s.URL(), queues)
	held := reserveAny(t, elsewhere, same, 1, 0).Leases[0]
	leases := reserveAny(t, c, queues, 1, 5*time.Second).Leases
	require.Len(t, leases, 1)
	require.Equal(t, 2, leases[0].Attempt)
	require.WithinDuration(t, held.Expires, time.Now(), 800*time.Millisecond)
}

func TestReserveAnyCancelledGivesBack(t *testing.T) {
	t.Parallel()
	b, queues := many(t, 20)
	for range 50 {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		var leases []*natslease.Lease
		go func() {
			defer close(ended)
			report, err := b.client.ReserveAny(ctx, queues, 5, 5*time.Second)
			leases = report.Leases
			if err != nil && natslease.CodeOf(err) != natslease.CodeCanceled {
				t.Error(err)
			}
		}()
		_, err := b.js.Publish(within(t, patience), "job_5", nil)
		require.NoError(t, err)
		cancel()
		<-ended
		if len(leases) == 0 {
			leases = reserveAny(t, b.client, queues, 5, 2*time.Second).Leases
		}
		require.Len(t, leases, 1)
		require.Equal(t, 1, leases[0].Attempt)
		require.NoError(t, leases[0].Ack(within(t, patience)))
	}
}

// A flood of calls costs the server one look at each queue per interval.
func TestReserveAnyFloodStaysSmall(t *testing.T) {
	t.Parallel()
	const jobs = 40
	b, queues := many(t, jobs)
	reserveAny(t, b.client, queues, 5, 0)
	pulls := pullCounter(t, b.server.URL())
	started := time.Now()
	var answers atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for time.Since(started) < 2*time.Second {
				report, err := b.client.ReserveAny(within(t, patience), queues, 5, 0)
				if err != nil || len(report.Leases) > 0 {
					t.Errorf("%d leases, %v", len(report.Leases), err)
					return
				}
				answers.Add(1)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, pulls.Load(), jobs*(int64(time.Since(started)/(250*time.Millisecond))+2))
	require.Positive(t, pulls.Load())
	t.Logf("%d answers, %d looks", answers.Load(), pulls.Load())
}

// What a call need not look at is looked at for the next ones: everything once, then one queue per millisecond.
func TestReserveAnyLooksForTheNextCalls(t *testing.T) {
	t.Parallel()
	const jobs, calls = 200, 300
	b, made := many(t, jobs)
	publish(t, made[0], calls+1)
	c, queues := strangers(t, b.server.URL(), made)
	pulls := pullCounter(t, b.server.URL())
	takeAny(t, c, queues, 1)
	require.Eventually(t, func() bool { return pulls.Load() > jobs }, patience, time.Millisecond)
	before, started := pulls.Load(), time.Now()
	for range calls {
		takeAny(t, c, queues, 1)
	}
	looks := pulls.Load() - before - calls
	require.LessOrEqual(t, looks, 2*time.Since(started).Milliseconds()+3*jobs, "a slow server has some looked at again")
}

// Hundreds of queues: the times that are aimed at (10 ms, and three times a reserve of 64) are the machine's affair; what
// is checked is only that they are not of another order.
func TestReserveAnyOfHundreds(t *testing.T) {
	t.Parallel()
	p := natstest.StartProcess(t, natstest.Newest)
	maker := connectTo(t, p.URL())
	made := jobs(t, maker, 500, natslease.QueueConfig{MaxAckPending: 10_000})
	const rounds = 20
	for _, i := range []int{10, 250, 490} {
		publish(t, made[i], 64*2*rounds)
	}
	c, queues := strangers(t, p.URL(), made)
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	timed := func(call func()) time.Duration {
		started := time.Now()
		call()
		return time.Since(started)
	}
	cold := timed(func() { reserveAny(t, c, queues, 64, 0) })
	var warm, one []time.Duration
	taken := 0
	for range rounds {
		warm = append(warm, timed(func() { taken += len(reserveAny(t, c, queues, 64, 0).Leases) }))
		one = append(one, timed(func() {
			_, err := queues[10].Reserve(within(t, patience), 64, 0)
			require.NoError(t, err)
		}))
	}
	require.Greater(t, taken, 64*rounds/2)
	t.Logf("cold %s, warm %s, reserve %s", cold, median(warm), median(one))
	require.Less(t, cold, time.Second)
	require.Less(t, median(warm), 100*time.Millisecond)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
