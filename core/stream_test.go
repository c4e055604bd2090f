package natslease_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func stream(t *testing.T, c *natslease.Client, cfg natslease.StreamConfig) *natslease.Stream {
	t.Helper()
	s, err := c.Stream(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Ensure(within(t, patience)))
	require.NoError(t, s.Ensure(within(t, patience)), "it is there")
	return s
}

func appendTo(t *testing.T, s *natslease.Stream, entries ...natslease.Entry) {
	t.Helper()
	results, err := s.Append(within(t, patience), entries)
	require.NoError(t, err)
	for _, r := range results {
		require.Nil(t, r.Err)
	}
}

func TestStreamIsABucketToOthers(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	s := stream(t, connectTo(t, server.URL()), natslease.StreamConfig{
		KeyValue: true, Name: "KV_records", Subjects: []string{"$KV.records.>"}, MaxAge: time.Hour,
	})
	appendTo(t, s, natslease.Entry{Subject: "$KV.records.a.b", Data: []byte("1")})
	kv, err := natstest.JetStream(t, server.URL()).KeyValue(within(t, patience), "records")
	require.NoError(t, err)
	entry, err := kv.Get(within(t, patience), "a.b")
	require.NoError(t, err)
	assert.Equal(t, "1", string(entry.Value()))
	revision, err := kv.Update(within(t, patience), "a.b", []byte("2"), entry.Revision())
	require.NoError(t, err)
	last, err := s.Last(within(t, patience), "$KV.records.a.b")
	require.NoError(t, err)
	assert.Equal(t, revision, last.Seq)
	assert.Equal(t, "2", string(last.Data))
	status, err := kv.Status(within(t, patience))
	require.NoError(t, err)
	assert.Equal(t, time.Hour, status.TTL())
	assert.EqualValues(t, 1, status.History())
}

func TestStreamAppendAfter(t *testing.T) {
	t.Parallel()
	s := stream(t, connectTo(t, natstest.Start(t).URL()), natslease.StreamConfig{Name: "log", Subjects: []string{"log.>"}})
	last, err := s.Last(within(t, patience), "log.a")
	require.NoError(t, err)
	require.Nil(t, last)
	first, err := s.AppendAfter(within(t, patience), natslease.Entry{Subject: "log.a"}, 0)
	require.NoError(t, err)
	appendTo(t, s, natslease.Entry{Subject: "log.b"})
	second, err := s.AppendAfter(within(t, patience), natslease.Entry{Subject: "log.a"}, first)
	require.NoError(t, err)
	for _, stale := range []uint64{0, first} {
		_, err = s.AppendAfter(within(t, patience), natslease.Entry{Subject: "log.a"}, stale)
		requireCode(t, err, natslease.CodeConflict, natslease.OutcomeRejected)
	}
	info, err := s.Info(within(t, patience))
	require.NoError(t, err)
	assert.Equal(t, second, info.LastSeq)
}

func TestStreamEach(t *testing.T) {
	t.Parallel()
	s := stream(t, connectTo(t, natstest.Start(t).URL()), natslease.StreamConfig{Name: "log", Subjects: []string{"log.>"}})
	const n = 5000
	entries := make([]natslease.Entry, n)
	for i := range entries {
		entries[i] = natslease.Entry{Subject: fmt.Sprintf("log.%d", i%3), Data: fmt.Append(nil, i)}
	}
	appendTo(t, s, entries...)
	read := func(subject string, from uint64, limit int) []string {
		var found []string
		require.NoError(t, s.Each(within(t, patience), subject, from, func(e *natslease.Entry) bool {
			found = append(found, string(e.Data))
			return len(found) < limit
		}))
		return found
	}
	all := read("log.>", 1, n+1)
	require.Len(t, all, n)
	for i, data := range all {
		require.Equal(t, fmt.Sprint(i), data)
	}
	assert.Equal(t, []string{"1", "4", "7"}, read("log.1", 1, 3))
	assert.Len(t, read("log.2", 1, n), n/3)
	assert.Equal(t, []string{"4998", "4999"}, read("log.>", n-1, n))
	assert.Empty(t, read("log.none", 1, n))
}

func TestStreamSeqAt(t *testing.T) {
	t.Parallel()
	s := stream(t, connectTo(t, natstest.Start(t).URL()), natslease.StreamConfig{Name: "log", Subjects: []string{"log.>"}})
	seqAt := func(at time.Time) uint64 {
		seq, err := s.SeqAt(within(t, patience), at)
		require.NoError(t, err)
		return seq
	}
	assert.EqualValues(t, 0, seqAt(time.Time{}), "there is none")
	for range 20 {
		appendTo(t, s, natslease.Entry{Subject: "log.a"})
	}
	var times []time.Time
	require.NoError(t, s.Each(within(t, patience), "log.a", 1, func(e *natslease.Entry) bool {
		times = append(times, e.Stored)
		return true
	}))
	for i, at := range times {
		assert.EqualValues(t, i+1, seqAt(at))
	}
	assert.EqualValues(t, 21, seqAt(times[19].Add(1)))
	assert.EqualValues(t, 1, seqAt(times[0].Add(-time.Hour)))
}

func TestStreamThatIsNotThere(t *testing.T) {
	t.Parallel()
	c := connectTo(t, natstest.Start(t).URL())
	s, err := c.Stream(natslease.StreamConfig{Name: "log", Subjects: []string{"log.>"}})
	require.NoError(t, err)
	_, err = s.Last(within(t, patience), "log.a")
	requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	atOnce(t, func(ctx context.Context) {
		results, err := s.Append(ctx, []natslease.Entry{{Subject: "log.a"}})
		require.NoError(t, err)
		require.Equal(t, natslease.CodeQueueNotFound, results[0].Err.Code)
	})
	for _, cfg := range []natslease.StreamConfig{{}, {Name: "a.b", Subjects: []string{"a"}}, {Name: "a", Subjects: []string{"a"}, Replicas: 9}} {
		_, err = c.Stream(cfg)
		require.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	}
}

func TestStreamOfAnotherDomain(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, natstest.Domain("hub"))
	c := newClient(t, natslease.Config{Servers: []string{server.URL()}, Domain: "hub"})
	s := stream(t, c, natslease.StreamConfig{KeyValue: true, Name: "KV_records", Subjects: []string{"$KV.records.>"}})
	_, err := s.AppendAfter(within(t, patience), natslease.Entry{Subject: "$KV.records.a", Data: []byte("1")}, 0)
	require.NoError(t, err)
	js, err := jetstream.NewWithDomain(natstest.Connect(t, server.URL()), "hub")
	require.NoError(t, err)
	kv, err := js.KeyValue(within(t, patience), "records")
	require.NoError(t, err)
	entry, err := kv.Get(within(t, patience), "a")
	require.NoError(t, err)
	assert.Equal(t, "1", string(entry.Value()))
}
