package natslease_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func deadLetters(t testing.TB, q *natslease.Queue, limit int) []natslease.DeadLetter {
	t.Helper()
	letters, err := q.DeadLetters(within(t, patience), limit)
	require.NoError(t, err)
	return letters
}

func requeue(t testing.TB, q *natslease.Queue, letters ...natslease.DeadLetter) natslease.PublishReport {
	t.Helper()
	report, err := q.Requeue(within(t, patience), letters)
	require.NoError(t, err)
	return report
}

// abandon lets the leases of a queue with a short AckWait run out until the server has given its tasks up.
func abandon(t testing.TB, b bundle, attempts, tasks int) {
	t.Helper()
	advisories := subscribed(t, b, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>")
	for range attempts {
		reserve(t, b.queue, tasks)
	}
	for told := 0; told < tasks; {
		// Only a later pull meets them.
		leases, err := b.queue.Reserve(within(t, patience), 1, 100*time.Millisecond)
		require.NoError(t, err)
		require.Empty(t, leases)
		for len(advisories) > 0 {
			<-advisories
			told++
		}
	}
}

func subscribed(t testing.TB, b bundle, subject string) chan string {
	t.Helper()
	seen := make(chan string, 10_000)
	nc := natstest.Connect(t, b.server.URL())
	_, err := nc.Subscribe(subject, func(m *nats.Msg) { seen <- string(m.Data) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return seen
}

// bothRetentions runs a test on a work queue and on a stream that keeps what is settled.
func bothRetentions(t *testing.T, test func(t *testing.T, cfg natslease.QueueConfig)) {
	for _, retention := range []string{"workqueue", "limits"} {
		t.Run(retention, func(t *testing.T) {
			t.Parallel()
			test(t, natslease.QueueConfig{
				Stream: "jobs", Subject: "job.tasks", Consumer: "workers", DeadLetters: "dead", Retention: retention,
				MaxDeliver: 2, AckWait: 300 * time.Millisecond,
			})
		})
	}
}

func TestDeadLettersOfFailedTasks(t *testing.T) {
	t.Parallel()
	bothRetentions(t, func(t *testing.T, cfg natslease.QueueConfig) {
		cfg.AckWait = time.Minute
		b := setup(t, cfg)
		_, err := b.queue.Publish(within(t, patience), []natslease.Message{
			{Data: []byte("x\x00"), ID: "seventeen", Header: natslease.Header{"A": {"1", "2"}}}, {Data: []byte("fine")},
		})
		require.NoError(t, err)
		first := reserve(t, b.queue, 2)
		require.NoError(t, first[1].Ack(within(t, patience)))
		require.NoError(t, first[0].Nak(within(t, patience), 0))
		require.Empty(t, deadLetters(t, b.queue, 10))
		last := reserve(t, b.queue, 1)[0]
		results, err := b.queue.Settle(within(t, patience), natslease.Settlement{
			Kind: natslease.Nak, Delay: time.Hour, Reason: "boom:\r\nPUB jobs\x00 password=hunter2 \xff" + strings.Repeat("x", 2000),
		}, []natslease.SettleItem{{AckSubject: last.AckSubject}}) // as another process has it
		require.NoError(t, err)
		require.Equal(t, []natslease.SettleResult{{Status: natslease.Settled}}, results)

		letters := deadLetters(t, b.queue, 10)
		require.Len(t, letters, 1)
		l := letters[0]
		require.Equal(t, "jobs/job.tasks/workers/1/seventeen/2", fmt.Sprintf("%s/%s/%s/%d/%s/%d", l.Stream, l.Subject, l.Consumer, l.Seq, l.ID, l.Attempts))
		require.Equal(t, "x\x00", string(l.Data))
		require.Equal(t, natslease.Header{"A": {"1", "2"}}, l.Header)
		require.Contains(t, l.Reason, "boom: PUB jobs")
		require.NotContains(t, l.Reason, "hunter2")
		require.Less(t, len(l.Reason), 1100)
		require.Contains(t, l.Worker, t.Name())
		require.True(t, l.Published.Equal(last.Published))
		require.WithinDuration(t, time.Now(), l.Died, patience)
		info, err := b.queue.Info(within(t, patience))
		require.NoError(t, err)
		require.Zero(t, info.NumAckPending, "it is TERMed")

		report := requeue(t, b.queue, l)
		require.Equal(t, 1, report.Accepted(), "%+v", report.Results)
		require.Empty(t, deadLetters(t, b.queue, 10))
		again := reserve(t, b.queue, 1)[0]
		require.Equal(t, 1, again.Attempt)
		require.Equal(t, "seventeen", again.ID)
		require.Equal(t, "x\x00", string(again.Data))
		require.Equal(t, []string{"1", "2"}, again.Header["A"])
		require.NoError(t, again.Ack(within(t, patience)))

		// Whoever has an old list enqueues nothing twice.
		report = requeue(t, b.queue, l)
		requireCode(t, report.Results[0].Err, natslease.CodeLeaseGone, natslease.OutcomeRejected)
		requireEmpty(t, b.queue)
	})
}

func TestDeadLettersOfTakersThatDied(t *testing.T) {
	t.Parallel()
	bothRetentions(t, func(t *testing.T, cfg natslease.QueueConfig) {
		b := setup(t, cfg)
		publish(t, b.queue, 3)
		abandon(t, b, cfg.MaxDeliver, 3)
		letters := deadLetters(t, b.queue, 10)
		require.Len(t, letters, 3)
		for _, l := range letters {
			require.Equal(t, 2, l.Attempts)
			require.Empty(t, l.Worker)
			require.NotEmpty(t, l.Reason)
		}
		require.Len(t, deadLetters(t, b.queue, 2), 2)
		require.Equal(t, 3, requeue(t, b.queue, letters...).Accepted())
		require.Empty(t, deadLetters(t, b.queue, 10))
		requireCode(t, requeue(t, b.queue, letters[0]).Results[0].Err, natslease.CodeLeaseGone, natslease.OutcomeRejected)
		leases := reserve(t, b.queue, 3)
		for _, l := range leases {
			require.NoError(t, l.Ack(within(t, patience)))
		}
		requireEmpty(t, b.queue)
	})
}

// A stream over the advisories that somebody else has made is used: the server allows no second one.
func TestDeadLettersBesideAnAdvisoryStream(t *testing.T) {
	t.Parallel()
	for name, subject := range map[string]string{
		"of all":         "$JS.EVENT.ADVISORY.>",
		"of this":        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.jobs.workers",
		"of another one": "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.other.*",
	} {
		for _, retention := range []string{"workqueue", "limits"} {
			t.Run(name+" "+retention, func(t *testing.T) {
				t.Parallel()
				s := natstest.Start(t)
				js := natstest.JetStream(t, s.URL())
				_, err := js.CreateStream(within(t, patience), jetstream.StreamConfig{Name: "OPS", Subjects: []string{subject}})
				require.NoError(t, err)
				c := connectTo(t, s.URL())
				q := existing(t, c, natslease.QueueConfig{
					Stream: "jobs", Consumer: "workers", DeadLetters: "dead", Retention: retention, MaxDeliver: 1, AckWait: 200 * time.Millisecond,
				})
				publish(t, q, 1)
				b := bundle{server: s, client: c, queue: q, js: js}
				abandon(t, b, 1, 1)
				letters := deadLetters(t, q, 10)
				require.Len(t, letters, 1)
				require.Equal(t, 1, requeue(t, q, letters...).Accepted())
				require.Empty(t, deadLetters(t, q, 10))
				// A second queue, made later, shares the stream.
				other := existing(t, c, natslease.QueueConfig{Stream: "more", DeadLetters: "dead", MaxDeliver: 1})
				publish(t, other, 1)
				require.NoError(t, reserve(t, other, 1)[0].Nak(within(t, patience), 0))
				require.Len(t, deadLetters(t, other, 10), 1)
				require.Empty(t, deadLetters(t, q, 10))
			})
		}
	}
}

// A crash between the copy and the TERM leaves both a copy and an advisory: that is one letter.
func TestDeadLettersAreMerged(t *testing.T) {
	t.Parallel()
	bothRetentions(t, func(t *testing.T, cfg natslease.QueueConfig) {
		cfg.MaxDeliver = 1
		b := setup(t, cfg)
		publish(t, b.queue, 1)
		proxy := natstest.NewProxy(t, b.server.Addr())
		worker := named(t, newClient(t, natslease.Config{Servers: []string{proxy.URL()}, Name: "the worker " + t.Name()}), cfg)
		l := reserve(t, worker, 1)[0]
		proxy.CutBefore(natstest.FromClient, "+TERM")
		requireCode(t, l.Nak(within(t, patience), 0), natslease.CodeConnectionLost, natslease.OutcomeUnknown)
		letters := deadLetters(t, b.queue, 10)
		require.Len(t, letters, 1)
		abandon(t, b, 0, 1)
		letters = deadLetters(t, b.queue, 10)
		require.Len(t, letters, 1)
		require.Equal(t, "the worker "+t.Name(), letters[0].Worker)
		require.Equal(t, 1, requeue(t, b.queue, letters...).Accepted())
		require.Empty(t, deadLetters(t, b.queue, 10))
		require.NoError(t, reserve(t, b.queue, 1)[0].Ack(within(t, patience)))
		requireEmpty(t, b.queue)
	})
}

// What cannot be copied is NAKed: it stays in its stream, and the server's advisory tells of it.
func TestDeadLettersThatCannotBeCopied(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "jobs", DeadLetters: "dead", MaxDeliver: 1})
	publish(t, b.queue, 1)
	l := reserve(t, b.queue, 1)[0]
	require.NoError(t, b.js.DeleteStream(within(t, patience), "dead"))
	require.NoError(t, l.Nak(within(t, patience), 0))
	_, err := b.queue.DeadLetters(within(t, patience), 1)
	requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	require.ErrorContains(t, err, "dead")
	_, err = b.queue.Ensure(within(t, patience), natslease.ConflictKeep)
	require.NoError(t, err)
	abandon(t, b, 0, 1)
	require.Len(t, deadLetters(t, b.queue, 10), 1)
}

// A stream that was deleted and made anew counts from 1 again: letters of before are not of it.
func TestDeadLettersOfAStreamMadeAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "jobs", DeadLetters: "dead", MaxDeliver: 1, AckWait: 200 * time.Millisecond})
	publish(t, b.queue, 2)
	require.NoError(t, reserve(t, b.queue, 1)[0].Nak(within(t, patience), 0))
	abandon(t, b, 1, 1)
	require.Len(t, deadLetters(t, b.queue, 10), 2)
	_, err := b.queue.Delete(within(t, patience))
	require.NoError(t, err)
	_, err = b.queue.Ensure(within(t, patience), natslease.ConflictKeep)
	require.NoError(t, err)
	publish(t, b.queue, 2)
	letters := deadLetters(t, b.queue, 10)
	require.Len(t, letters, 1, "the copy outlives its stream")
	require.Equal(t, 1, requeue(t, b.queue, letters...).Accepted())
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, uint64(3), info.Messages)
}

func TestDeadLettersRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "jobs", DeadLetters: "dead"})
	off := existing(t, b.client, natslease.QueueConfig{Stream: "off"})
	_, err := off.DeadLetters(within(t, patience), 1)
	requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	_, err = off.Requeue(within(t, patience), nil)
	requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	_, err = b.queue.DeadLetters(within(t, patience), 0)
	requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	requireCode(t, requeue(t, b.queue, natslease.DeadLetter{Stream: "off", Consumer: "off", Seq: 1}).Results[0].Err,
		natslease.CodeConfig, natslease.OutcomeRejected)
	_, err = b.client.Queue(natslease.QueueConfig{Stream: "x", DeadLetters: "x"})
	require.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	_, err = b.client.Queue(natslease.QueueConfig{Stream: "x", DeadLetters: "a.b"})
	require.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	require.Zero(t, len(requeue(t, b.queue).Results))
}
