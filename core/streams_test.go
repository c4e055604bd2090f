package natslease_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func names(list natslease.StreamList) []string {
	found := []string{}
	for _, s := range list.Streams {
		found = append(found, s.Name)
	}
	return found
}

func TestStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "job_1", Subject: "job.1.tasks", Consumer: "job-1-consumer", AckWait: 7 * time.Second})
	other := existing(t, b.client, natslease.QueueConfig{Stream: "job_22", Subject: "job.22.tasks"})
	existing(t, b.client, natslease.QueueConfig{Stream: "images"})
	publish(t, b.queue, 5)
	reserve(t, b.queue, 2)

	all, err := b.client.Streams(within(t, patience), natslease.StreamFilter{})
	require.NoError(t, err)
	assert.Equal(t, []string{"images", "job_1", "job_22"}, names(all))
	assert.Empty(t, all.Missing)
	for _, s := range all.Streams {
		assert.Nil(t, s.Consumers, "they were not asked for")
		assert.Equal(t, 1, s.NumConsumers)
	}

	list, err := b.client.Streams(within(t, patience), natslease.StreamFilter{Pattern: "job_*", Consumers: true})
	require.NoError(t, err)
	require.Equal(t, []string{"job_1", "job_22"}, names(list))
	s := list.Streams[0]
	assert.Equal(t, []string{"job.1.tasks"}, s.Subjects)
	assert.EqualValues(t, 5, s.Messages)
	assert.EqualValues(t, 1, s.FirstSeq)
	assert.EqualValues(t, 5, s.LastSeq)
	assert.Positive(t, s.Bytes)
	assert.Equal(t, "workqueue", s.Retention)
	for what, at := range map[string]time.Time{"created": s.Created, "first": s.First, "last": s.Last, "told": s.Told} {
		assert.WithinDuration(t, time.Now(), at, time.Minute, what)
	}
	require.Len(t, s.Consumers, 1)
	c := s.Consumers[0]
	assert.Equal(t, "job_1", c.Stream)
	assert.Equal(t, "job-1-consumer", c.Name)
	assert.Equal(t, []string{"job.1.tasks"}, c.Subjects)
	assert.EqualValues(t, 3, c.NumPending)
	assert.EqualValues(t, 2, c.NumAckPending)
	assert.Equal(t, 7*time.Second, c.AckWait)
	assert.Zero(t, list.Streams[1].First, "nothing was published to it")
	assert.Zero(t, list.Streams[1].Last)

	list, err = b.client.Streams(within(t, patience), natslease.StreamFilter{Subject: other.Config().Subject})
	require.NoError(t, err)
	assert.Equal(t, []string{"job_22"}, names(list))

	for _, filter := range []natslease.StreamFilter{{Pattern: "job_[0-"}, {Subject: "a..b"}, {Subject: "a b"}} {
		_, err = b.client.Streams(within(t, patience), filter)
		requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	}
}

// The server gives 256 at a time.
func TestStreamsOfManyPages(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	js := natstest.JetStream(t, s.URL())
	c := connectTo(t, s.URL())
	const n = 600
	for i := range n {
		_, err := js.CreateStream(within(t, patience), jetstream.StreamConfig{
			Name: fmt.Sprintf("job_%d", i), Subjects: []string{fmt.Sprintf("job.%d", i)}, Storage: jetstream.MemoryStorage,
		})
		require.NoError(t, err)
	}
	list, err := c.Streams(within(t, patience), natslease.StreamFilter{Pattern: "job_*", Consumers: true})
	require.NoError(t, err)
	require.Len(t, list.Streams, n)
	list, err = c.Streams(within(t, patience), natslease.StreamFilter{Pattern: "job_5?"})
	require.NoError(t, err)
	assert.Len(t, list.Streams, 10)
}

func TestStreamsWhereThereAreNone(t *testing.T) {
	t.Parallel()
	c := connectTo(t, natstest.Start(t).URL())
	list, err := c.Streams(within(t, patience), natslease.StreamFilter{Consumers: true})
	require.NoError(t, err)
	assert.Empty(t, list.Streams)

	off := connectTo(t, natstest.Start(t, natstest.WithoutJetStream()).URL())
	_, err = off.Streams(within(t, patience), natslease.StreamFilter{})
	requireCode(t, err, natslease.CodeQueueUnavailable, natslease.OutcomeRejected)
}

func TestStreamsOfACluster(t *testing.T) {
	t.Parallel()
	servers := natstest.StartCluster(t, 3)
	c := connectTo(t, servers[0].URL())
	existing(t, c, natslease.QueueConfig{Stream: "one"})
	existing(t, c, natslease.QueueConfig{Stream: "three", Replicas: 3})
	list, err := c.Streams(within(t, patience), natslease.StreamFilter{Consumers: true})
	require.NoError(t, err)
	require.Equal(t, []string{"one", "three"}, names(list))
	for _, s := range list.Streams {
		assert.NotEmpty(t, s.Leader)
		assert.Len(t, s.Consumers, 1)
	}

	away := func() (stream, consumer []string) {
		list, err := c.Streams(within(t, patience), natslease.StreamFilter{Pattern: "three", Consumers: true})
		if err != nil || len(list.Streams) == 0 {
			return []string{"nothing is known"}, nil
		}
		return list.Streams[0].Away, list.Streams[0].Consumers[0].Away
	}
	require.Eventually(t, func() bool {
		stream, consumer := away()
		return len(stream) == 0 && len(consumer) == 0
	}, patience, 10*time.Millisecond)
	servers[2].Shutdown()
	gone := []string{servers[2].Embedded().Name()}
	require.Eventually(t, func() bool {
		stream, consumer := away()
		return slices.Equal(stream, gone) && slices.Equal(consumer, gone)
	}, patience, 10*time.Millisecond)
}

// The server waits some seconds for one that is away before it names its streams.
func TestStreamsOfAServerThatIsAway(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartProcessCluster(t, natstest.Newest, 3)
	first := connectTo(t, cluster[0].URL())
	existing(t, first, natslease.QueueConfig{Stream: "three", Replicas: 3})
	existing(t, first, natslease.QueueConfig{Stream: "one"})
	list, err := first.Streams(within(t, patience), natslease.StreamFilter{Pattern: "one"})
	require.NoError(t, err)
	cluster.Named(list.Streams[0].Leader).Kill()
	c := connectTo(t, cluster.Other(list.Streams[0].Leader).URL())
	require.Eventually(t, func() bool {
		list, err := c.Streams(within(t, 6*time.Second), natslease.StreamFilter{})
		return err == nil && slices.Equal(list.Missing, []string{"one"}) && slices.Contains(names(list), "three")
	}, 3*patience, 10*time.Millisecond)
}

func TestDeleteStream(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "jobs"})
	existed, err := b.client.DeleteStream(within(t, patience), "jobs")
	require.NoError(t, err)
	assert.True(t, existed)
	existed, err = b.client.DeleteStream(within(t, patience), "jobs")
	require.NoError(t, err)
	assert.False(t, existed)
	for _, name := range []string{"", "*", "a.b", "a b"} {
		_, err = b.client.DeleteStream(within(t, patience), name)
		requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	}
}
