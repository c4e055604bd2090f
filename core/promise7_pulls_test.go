//go:build linux

package natslease_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// onBoth is setup against a server of its own process, of each version.
func onBoth(t *testing.T, cfg natslease.QueueConfig, test func(t *testing.T, p *natstest.Process, b bundle)) {
	t.Helper()
	onBothServers(t, func(t *testing.T, version natstest.Version) {
		p := natstest.StartProcess(t, version)
		c := connectTo(t, p.URL())
		test(t, p, bundle{client: c, queue: existing(t, c, cfg), js: natstest.JetStream(t, p.URL())})
	})
}

// restrict changes what the consumer allows.
func restrict(t *testing.T, b bundle, change func(cfg *jetstream.ConsumerConfig)) {
	t.Helper()
	consumer, err := b.js.Consumer(within(t, patience), "jobs", "jobs")
	require.NoError(t, err)
	cfg := consumer.CachedInfo().Config
	change(&cfg)
	_, err = b.js.UpdateConsumer(within(t, patience), "jobs", cfg)
	require.NoError(t, err)
}

// Limits of the consumer are kept to once they are known, and cost nobody his tasks.
func TestPromise7PullsWithinTheConsumersLimits(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{}, func(t *testing.T, _ *natstest.Process, b bundle) {
		restrict(t, b, func(cfg *jetstream.ConsumerConfig) {
			cfg.MaxRequestBatch, cfg.MaxRequestExpires = 3, 100*time.Millisecond
		})
		publish(t, b.queue, 20)
		require.LessOrEqual(t, len(reserve(t, b.queue, 3)), 3)
		reserve(t, b.queue, 16)
		published := make(chan error, 1)
		time.AfterFunc(time.Second, func() {
			_, err := b.js.Publish(within(t, patience), "jobs", nil)
			published <- err
		})
		reserve(t, b.queue, 1)
		atOnce(t, func(context.Context) { reserve(t, b.queue, 1) }) // it waits for longer than one pull may
		require.NoError(t, <-published)
		for range 5 {
			requireEmpty(t, b.queue)
		}
	})
}

// A consumer that holds as many pulls of others as it may has no room for ours: that is "busy", never "empty".
func TestPromise7PullsThatHaveNoRoom(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{}, func(t *testing.T, p *natstest.Process, b bundle) {
		require.NoError(t, b.js.DeleteConsumer(within(t, patience), "jobs", "jobs"))
		_, err := b.js.CreateConsumer(within(t, patience), "jobs", jetstream.ConsumerConfig{
			Durable: "jobs", AckPolicy: jetstream.AckExplicitPolicy, MaxWaiting: 2, FilterSubject: "jobs",
		})
		require.NoError(t, err)
		nc := natstest.Connect(t, p.URL())
		others, err := nc.SubscribeSync("others")
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.jobs.jobs", "others", []byte(`{"batch":1,"expires":60000000000}`)))
		}
		awaitPulls(t, b.queue, 2)
		for _, wait := range []time.Duration{0, 300 * time.Millisecond} {
			leases, err := b.queue.Reserve(within(t, time.Second), 1, wait)
			require.Empty(t, leases)
			if err == nil {
				continue // the consumer says itself that it has nothing
			}
			requireCode(t, err, natslease.CodeBusy, natslease.OutcomeNotSent)
			require.Positive(t, err.(*natslease.Error).RetryAfter)
		}
		ended := make(chan error, 1)
		go func() {
			leases, err := b.queue.Reserve(context.Background(), 1, patience)
			if err == nil && len(leases) != 1 {
				err = fmt.Errorf("%d leases", len(leases))
			}
			ended <- err
		}()
		publish(t, b.queue, 3) // two for the others, whose pulls make room for ours
		require.NoError(t, <-ended)
		for range 2 {
			_, err := others.NextMsg(patience)
			require.NoError(t, err)
		}
	})
}

// Where others wait for more than there is the server refuses a pull at once: no reason to spin, nor to call it empty.
func TestPromise7PullsBehindOthers(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{MaxAckPending: 1}, func(t *testing.T, p *natstest.Process, b bundle) {
		publish(t, b.queue, 3)
		held := reserve(t, b.queue, 1)
		nc := natstest.Connect(t, p.URL())
		others, err := nc.SubscribeSync("others")
		require.NoError(t, err)
		require.NoError(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.jobs.jobs", "others", []byte(`{"batch":1000,"expires":60000000000}`)))
		awaitPulls(t, b.queue, 1)
		pulls := pullCounter(t, p.URL())
		started := time.Now()
		for time.Since(started) < time.Second {
			_, err := b.queue.Reserve(within(t, patience), 1, 100*time.Millisecond)
			requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
		}
		require.Less(t, pulls.Load(), int64(20))
		require.NoError(t, held[0].Ack(within(t, patience)))
		_, err = others.NextMsg(patience)
		require.NoError(t, err)
	})
}

// A consumer that pushes, and a stream or consumer that is deleted under a call that waits, are told from an empty queue.
func TestPromise7PullsOfAQueueThatChangesUnderThem(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		do   func(t *testing.T, b bundle)
		code natslease.Code
	}{
		"consumer deleted": {func(t *testing.T, b bundle) {
			require.NoError(t, b.js.DeleteConsumer(within(t, patience), "jobs", "jobs"))
		}, natslease.CodeQueueNotFound},
		"stream deleted": {func(t *testing.T, b bundle) {
			require.NoError(t, b.js.DeleteStream(within(t, patience), "jobs"))
		}, natslease.CodeQueueNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, natslease.QueueConfig{}, func(t *testing.T, _ *natstest.Process, b bundle) {
				ends := inFlight(t, b.client, b.queue, 5)
				change.do(t, b)
				atOnce(t, func(context.Context) {
					for range 5 {
						requireCode(t, <-ends, change.code, natslease.OutcomeRejected)
					}
				})
				for _, wait := range []time.Duration{0, time.Second} {
					atOnce(t, func(ctx context.Context) {
						_, err := b.queue.Reserve(ctx, 1, wait)
						requireCode(t, err, change.code, natslease.OutcomeRejected)
					})
				}
				_, err := b.queue.Ensure(within(t, patience), natslease.ConflictKeep)
				require.NoError(t, err)
				publish(t, b.queue, 1)
				reserve(t, b.queue, 1)
			})
		})
	}
}

// A consumer that pushes gives nothing to those who ask: the caller is told what the server says.
func TestPromise7PullsOfAConsumerThatPushes(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{}, func(t *testing.T, p *natstest.Process, b bundle) {
		require.NoError(t, b.js.DeleteConsumer(within(t, patience), "jobs", "jobs"))
		nc := natstest.Connect(t, p.URL())
		js, err := nc.JetStream()
		require.NoError(t, err)
		_, err = js.AddConsumer("jobs", &nats.ConsumerConfig{Durable: "jobs", DeliverSubject: "there", AckPolicy: nats.AckExplicitPolicy, FilterSubject: "jobs"})
		require.NoError(t, err)
		atOnce(t, func(ctx context.Context) {
			_, err := b.queue.Reserve(ctx, 1, 0)
			requireCode(t, err, natslease.CodeServer, natslease.OutcomeRejected)
			require.ErrorContains(t, err, "push")
		})
	})
}

// The stream is deleted while much is published: each message is accepted, or said to be not, or not known.
func TestPromise7StreamDeletedUnderAPublish(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{}, func(t *testing.T, _ *natstest.Process, b bundle) {
		deleted := make(chan error, 1)
		time.AfterFunc(5*time.Millisecond, func() { deleted <- b.js.DeleteStream(within(t, patience), "jobs") })
		codes := make(map[natslease.Code]int)
		atOnce(t, func(ctx context.Context) {
			for codes[natslease.CodeQueueNotFound] == 0 {
				report, err := b.queue.Publish(ctx, make([]natslease.Message, 5000))
				require.NoError(t, err)
				for _, r := range report.Results {
					if r.Err == nil {
						require.NotZero(t, r.Seq)
						codes[""]++
						continue
					}
					codes[r.Err.Code]++
					require.Equal(t, natslease.CodeQueueNotFound, r.Err.Code, "%v", r.Err)
				}
			}
		})
		require.NoError(t, <-deleted)
		t.Logf("%v", codes)
	})
}

// A reserve that wants to wait for nothing is told of a consumer that has reached its limit within 100 ms, and leaves no
// pull with the server.
func TestPromise7PullsSaturated(t *testing.T) {
	t.Parallel()
	onBoth(t, natslease.QueueConfig{MaxAckPending: 2}, func(t *testing.T, p *natstest.Process, b bundle) {
		publish(t, b.queue, 3)
		held := reserve(t, b.queue, 2)
		fastest := time.Hour
		for range 5 {
			elsewhere := connectTo(t, p.URL()) // a process that knows nothing of the queue
			_, err := elsewhere.Ping(within(t, patience))
			require.NoError(t, err)
			started := time.Now()
			_, err = named(t, elsewhere, natslease.QueueConfig{}).Reserve(within(t, patience), 1, 0)
			fastest = min(fastest, time.Since(started))
			requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
			info, err := b.queue.Info(within(t, patience))
			require.NoError(t, err)
			require.Zero(t, info.NumWaiting)
		}
		require.Less(t, fastest, 100*time.Millisecond)
		require.NoError(t, held[0].Ack(within(t, patience)))
		reserve(t, b.queue, 1)
	})
}

// Lame duck mode and SIGTERM end the session at once, of those who wait and of those who publish.
func TestPromise7PullsFromALameDuck(t *testing.T) {
	t.Parallel()
	for name, announce := range map[string]func(p *natstest.Process){
		"lame duck": func(p *natstest.Process) { p.LameDuck() },
		"SIGTERM":   func(p *natstest.Process) { p.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, natslease.QueueConfig{}, func(t *testing.T, p *natstest.Process, b bundle) {
				ends := inFlight(t, b.client, b.queue, 3)
				atOnce(t, func(context.Context) {
					announce(p)
					for range 3 {
						requireCode(t, <-ends, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
					}
				})
			})
		})
	}
}
