package natslease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// scripted is a client of a server without JetStream, whose part plays a connection that answers what is published to a
// subject with one line after the other: "" is no answer, and the last line is repeated.
func scripted(t *testing.T, subject string, lines ...string) (c *natslease.Client, ids chan string) {
	t.Helper()
	s := natstest.Start(t, natstest.WithoutJetStream())
	nc := natstest.Connect(t, s.URL())
	var asked atomic.Int64
	ids = make(chan string, 100)
	_, err := nc.Subscribe(subject, func(m *nats.Msg) {
		ids <- m.Header.Get("Nats-Msg-Id")
		if line := lines[min(int(asked.Add(1)), len(lines))-1]; line != "" {
			_ = m.Respond([]byte(line))
		}
	})
	require.NoError(t, err)
	_, err = nc.Subscribe("$JS.API.STREAM.INFO.jobs", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"config":{"name":"jobs","subjects":["jobs"],"duplicate_window":120000000000}}`))
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return connectTo(t, s.URL()), ids
}

// What a stream's leader took just before it stepped down is never answered, and a later try can meet what that one left
// behind: an id that is known, with nothing stored under it. Neither is taken for an answer.
func TestPromise5NothingLostInALeadersSilence(t *testing.T) {
	t.Parallel()
	for name, undecided := range map[string]string{
		"2.10": `{"stream":"jobs","seq":0,"duplicate": true}`,
		"2.15": `{"stream":"jobs","seq":0,"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ids := scripted(t, "jobs", "", undecided, `{"stream":"jobs", "seq":7}`)
			report, err := named(t, c, natslease.QueueConfig{}).Publish(within(t, patience), []natslease.Message{{ID: "17"}})
			require.NoError(t, err)
			require.Equal(t, []natslease.PublishResult{{ID: "17", Seq: 7}}, report.Results)
			require.Len(t, ids, 3)
			for range 3 {
				require.Equal(t, "17", <-ids)
			}
			c, _ = scripted(t, "jobs", undecided)
			report, err = named(t, c, natslease.QueueConfig{}).Publish(within(t, time.Second), []natslease.Message{{ID: "17"}})
			require.NoError(t, err)
			requireCode(t, report.Results[0].Err, natslease.CodeQueueUnavailable, natslease.OutcomeUnknown)
		})
	}
}

// An ack that got no answer is sent again. A NAK is not: the first one may have given the task to somebody else, from whom
// the second would take it away.
func TestPromise6AckedInALeadersSilence(t *testing.T) {
	t.Parallel()
	const lease = "$JS.ACK.jobs.jobs.1.1.1.1700000000000000000.0"
	for _, kind := range []natslease.SettleKind{natslease.Ack, natslease.Extend, natslease.Term, natslease.Nak} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			c, sent := scripted(t, lease, "", "answered")
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			results, err := named(t, c, natslease.QueueConfig{}).Settle(ctx, natslease.Settlement{Kind: kind}, []natslease.SettleItem{{AckSubject: lease}})
			require.NoError(t, err)
			if kind == natslease.Nak {
				require.Equal(t, natslease.Unknown, results[0].Status)
				require.Len(t, sent, 1)
				return
			}
			require.Equal(t, natslease.Settled, results[0].Status, "%v", results[0].Err)
			require.Len(t, sent, 2)
		})
	}
}
