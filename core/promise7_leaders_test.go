//go:build linux

package natslease_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// onBothServers runs a test against the newest and the oldest server.
func onBothServers(t *testing.T, test func(t *testing.T, version natstest.Version)) {
	t.Helper()
	for _, version := range []natstest.Version{natstest.Newest, natstest.Oldest} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			test(t, version)
		})
	}
}

// replicated is a queue with a replica on each of three servers, for a process that is connected to one which does not
// lead its consumer.
type replicated struct {
	cluster natstest.Cluster
	client  *natslease.Client
	queue   *natslease.Queue
	leader  string // of the consumer
}

func replicate(t *testing.T, version natstest.Version, cfg natslease.QueueConfig) replicated {
	t.Helper()
	cfg.Replicas = 3
	r := replicated{cluster: natstest.StartProcessCluster(t, version, 3)}
	existing(t, connectTo(t, r.cluster[0].URL()), cfg)
	consumer, err := natstest.JetStream(t, r.cluster[0].URL()).Consumer(within(t, patience), "jobs", "jobs")
	require.NoError(t, err)
	r.leader = consumer.CachedInfo().Cluster.Leader
	r.client = connectTo(t, r.cluster.Other(r.leader).URL())
	r.queue = named(t, r.client, natslease.QueueConfig{})
	return r
}

// Leaders that change are no event for those who wait, and none for those who publish.
func TestPromise7ErrorsOfALeaderThatStepsDown(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, version natstest.Version) {
		const takers, rounds = 5, 4
		// What a consumer's leader was about to send when it stepped down comes after AckWait: the server has it so.
		r := replicate(t, version, natslease.QueueConfig{AckWait: 2 * time.Second})
		nc := natstest.Connect(t, r.cluster[0].URL())
		ends := inFlight(t, r.client, r.queue, takers)
		for i := range rounds {
			for _, group := range []string{"STREAM.LEADER.STEPDOWN.jobs", "CONSUMER.LEADER.STEPDOWN.jobs.jobs"} {
				_, err := nc.Request("$JS.API."+group, nil, 5*time.Second)
				require.NoError(t, err)
				report, err := r.queue.Publish(within(t, patience), []natslease.Message{{Data: fmt.Append(nil, i)}})
				require.NoError(t, err)
				require.Zero(t, report.Failed(), "%+v", report.Results)
			}
		}
		for range takers {
			require.NoError(t, <-ends)
		}
		for got := 0; got < 2*rounds-takers; {
			leases, err := r.queue.Reserve(within(t, patience), 2*rounds, 5*time.Second)
			require.NoError(t, err)
			require.NotEmpty(t, leases)
			got += len(leases)
		}
		require.Equal(t, uint64(1), r.client.Stats().Generation)
	})
}

// A leader that is killed leaves its queue without one for seconds. Meanwhile no call is late, and none calls the queue
// gone or empty; afterwards work goes on at once.
func TestPromise7ErrorsOfALeaderThatIsKilled(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, version natstest.Version) {
		r := replicate(t, version, natslease.QueueConfig{})
		publish(t, r.queue, 5000) // more than will be taken: "empty" would be untrue
		const timeout = 2 * time.Second
		var late natstest.Lateness
		var outage, stop atomic.Bool
		resumed := make(chan time.Time, 1) // the first task after the outage
		var wg sync.WaitGroup
		call := func(do func(ctx context.Context) error) error {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			err := do(ctx)
			switch natslease.CodeOf(err) {
			case natslease.CodeQueueUnavailable, natslease.CodeDeadline:
				outage.Store(true)
				return err
			}
			if err != nil {
				t.Error(err)
			}
			return nil
		}
		loop := func(do func(ctx context.Context) error) {
			wg.Go(func() { // as fast as it can
				for !stop.Load() {
					_ = call(do)
				}
			})
			wg.Go(func() { // and one after the other, to see how late they are
				for !stop.Load() {
					late.Measure(time.Now().Add(timeout), func() { _ = call(do) })
				}
			})
		}
		for range 2 {
			loop(func(ctx context.Context) error {
				leases, err := r.queue.Reserve(ctx, 1, 100*time.Millisecond)
				if err != nil {
					return err
				}
				if len(leases) == 0 {
					t.Error("the queue was called empty")
					return nil
				}
				if outage.Load() {
					select {
					case resumed <- time.Now():
					default:
					}
				}
				return leases[0].Ack(ctx)
			})
		}
		for range 2 {
			loop(func(ctx context.Context) error {
				report, err := r.queue.Publish(ctx, []natslease.Message{{}})
				if err == nil && report.Results[0].Err != nil {
					err = report.Results[0].Err
				}
				return err
			})
		}
		nc := natstest.Connect(t, r.cluster.Other(r.leader).URL())
		time.Sleep(200 * time.Millisecond)
		r.cluster.Named(r.leader).Kill()
		killed := time.Now()
		answers := awaitPull(t, nc)
		var took time.Duration
		select {
		case first := <-resumed:
			took = first.Sub(answers)
		case <-time.After(patience):
			t.Error("no call succeeded any more")
		}
		stop.Store(true)
		wg.Wait()
		t.Logf("the servers gave tasks again %s after the kill, to natslease %s after that", answers.Sub(killed), took)
		require.Less(t, took, time.Second)
		late.Assert(t)
		require.Equal(t, uint64(1), r.client.Stats().Generation)
	})
}

// awaitPull takes tasks with bare pulls until it gets one that the servers gave after they had failed to; it returns when
// that was.
func awaitPull(t *testing.T, nc *nats.Conn) time.Time {
	t.Helper()
	failed := false
	for started := time.Now(); time.Since(started) < patience; {
		m, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.jobs.jobs", []byte(`{"batch":1,"expires":50000000,"no_wait":true}`), 100*time.Millisecond)
		if err != nil || m.Reply == "" {
			failed = true
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if failed {
			return time.Now()
		}
	}
	require.FailNow(t, "the servers gave no task")
	return time.Time{}
}

// A queue of which the majority of the servers is away is unavailable until they are back: neither gone nor empty.
func TestPromise7ErrorsOfAQueueWithoutALeader(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, version natstest.Version) {
		r := replicate(t, version, natslease.QueueConfig{})
		publish(t, r.queue, 3)
		leases := reserve(t, r.queue, 1)
		r.cluster.AwaitPending(t, 1) // a leader does not answer the ack of what it has never given out
		var away []*natstest.Process
		for _, p := range r.cluster {
			if r.client.Stats().ServerName != p.Name {
				p.Kill()
				away = append(away, p)
			}
		}
		require.Len(t, away, 2)
		for name, do := range map[string]func(ctx context.Context) error{
			"reserve":       func(ctx context.Context) error { _, err := r.queue.Reserve(ctx, 1, 0); return err },
			"reserve, wait": func(ctx context.Context) error { _, err := r.queue.Reserve(ctx, 1, time.Second); return err },
			"reserve_any": func(ctx context.Context) error {
				_, err := r.client.ReserveAny(ctx, []*natslease.Queue{r.queue}, 1, 0)
				return err
			},
			"publish": func(ctx context.Context) error {
				report, err := r.queue.Publish(ctx, []natslease.Message{{}})
				require.NoError(t, err)
				return report.Results[0].Err
			},
			"ack":  func(ctx context.Context) error { return leases[0].Ack(ctx) },
			"info": func(ctx context.Context) error { _, err := r.queue.Info(ctx); return err },
			"ensure": func(ctx context.Context) error {
				_, err := r.queue.Ensure(ctx, natslease.ConflictKeep)
				return err
			},
		} {
			for _, timeout := range []time.Duration{100 * time.Millisecond, 1500 * time.Millisecond} {
				if name == "reserve, wait" && timeout < time.Second {
					continue
				}
				var late natstest.Lateness
				var err error
				late.Measure(time.Now().Add(timeout), func() {
					ctx, cancel := context.WithTimeout(context.Background(), timeout)
					defer cancel()
					err = do(ctx)
				})
				late.Assert(t)
				require.Contains(t, []natslease.Code{natslease.CodeQueueUnavailable, natslease.CodeDeadline}, natslease.CodeOf(err), "%s in %s: %v", name, timeout, err)
			}
		}
		for _, p := range away {
			p.Start()
		}
		// The servers may hold several elections until one succeeds.
		require.NoError(t, leases[0].Ack(within(t, 3*patience)))
		reserve(t, r.queue, 2)
		require.Equal(t, uint64(1), r.client.Stats().Generation)
	})
}
