package natslease_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// What ReserveAny knows of queues stands on how servers answer a pull that can take nothing.
func TestGlanceOnBothServers(t *testing.T) {
	t.Parallel()
	for _, version := range []natstest.Version{natstest.Newest, natstest.Oldest} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			p := natstest.StartProcess(t, version)
			c := connectTo(t, p.URL())
			q := existing(t, c, natslease.QueueConfig{MaxAckPending: 1, MaxDeliver: 3})
			nc := natstest.Connect(t, p.URL())
			glance := func() string {
				t.Helper()
				m, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.jobs.jobs", []byte(`{"batch":1,"max_bytes":1,"no_wait":true}`), 300*time.Millisecond)
				if err != nil {
					require.ErrorIs(t, err, nats.ErrTimeout)
					return ""
				}
				require.Empty(t, m.Data)
				return m.Header.Get("Status") + " " + m.Header.Get("Description")
			}
			const ready, empty, silent = "409 Message Size Exceeds MaxBytes", "404 No Messages", ""
			require.Equal(t, empty, glance())
			publish(t, q, 2)
			require.Eventually(t, func() bool { return glance() == ready }, patience, time.Millisecond)
			for attempt := 1; attempt <= 2; attempt++ {
				for range 20 {
					require.Equal(t, ready, glance(), "it takes nothing")
				}
				lease := reserve(t, q, 1)[0]
				require.Equal(t, attempt, lease.Attempt, "nor does it count as an attempt")
				require.Equal(t, "0", string(lease.Data))
				require.Equal(t, silent, glance(), "max_ack_pending is reached")
				require.NoError(t, lease.Nak(within(t, patience), 0))
			}
			lease := reserve(t, q, 1)[0]
			require.Equal(t, 3, lease.Attempt)
			require.NoError(t, lease.Ack(within(t, patience)))
			require.NoError(t, reserve(t, q, 1)[0].Ack(within(t, patience)))
			require.Eventually(t, func() bool { return glance() == empty }, patience, time.Millisecond)

			js, err := jetstream.New(nc)
			require.NoError(t, err)
			require.NoError(t, js.DeleteConsumer(within(t, patience), "jobs", "jobs"))
			_, err = nc.Request("$JS.API.CONSUMER.MSG.NEXT.jobs.jobs", []byte(`{"batch":1,"max_bytes":1,"no_wait":true}`), time.Second)
			require.ErrorIs(t, err, nats.ErrNoResponders)
			report, err := c.ReserveAny(within(t, patience), []*natslease.Queue{q}, 1, 0)
			requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
			require.Equal(t, []*natslease.Queue{q}, report.Missing)
		})
	}
}
