//go:build linux

package natslease_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// Nor of a replicated queue, of which the stream's leader confirms a task before the consumer's has heard of it.
func TestPromise11EmptyIsNeverUntrueOfAReplicatedQueue(t *testing.T) {
	t.Parallel()
	onBothServers(t, func(t *testing.T, version natstest.Version) {
		r := replicate(t, version, natslease.QueueConfig{})
		js := natstest.JetStream(t, r.cluster[0].URL())
		require.Eventually(t, func() bool {
			stream, err := js.Stream(within(t, patience), "jobs")
			if err != nil {
				return false
			}
			consumer, err := stream.Consumer(within(t, patience), "jobs")
			if err != nil {
				return false
			}
			leaders := [2]string{stream.CachedInfo().Cluster.Leader, consumer.CachedInfo().Cluster.Leader}
			if leaders[0] != "" && leaders[1] != "" && leaders[0] != leaders[1] {
				return true
			}
			_, _ = js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.jobs", nil, time.Second)
			return false
		}, patience, 500*time.Millisecond)
		for k := range r.cluster {
			q := named(t, connectTo(t, r.cluster[k].URL()), natslease.QueueConfig{})
			publisher := natstest.JetStream(t, r.cluster[(k+1)%len(r.cluster)].URL())
			for i := range 100 {
				for range i % 4 {
					requireEmpty(t, q)
				}
				_, err := publisher.Publish(within(t, patience), "jobs", fmt.Append(nil, i))
				require.NoError(t, err)
				leases, err := q.Reserve(within(t, patience), 1, 0)
				require.NoError(t, err)
				require.Len(t, leases, 1, "node%d, round %d", k, i)
				require.NoError(t, leases[0].Ack(within(t, patience)))
			}
		}
	})
}
