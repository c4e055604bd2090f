package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// BenchmarkTracking is all that a batch of 64 tasks costs besides the sending of a message now and then: what its calls
// record, and what is made of that four times a second. It is the worst case: that of the same tasks again and again,
// whose events cannot be put together.
func BenchmarkTracking(b *testing.B) {
	const n = 64
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := natslease.New(natslease.Config{Servers: []string{natstest.Start(b).URL()}, Name: b.Name()})
	require.NoError(b, err)
	defer func() { _ = c.Close(ctx) }()
	q, err := c.Queue(natslease.QueueConfig{Stream: "job_1"})
	require.NoError(b, err)
	_, err = q.Ensure(ctx, natslease.ConflictError)
	require.NoError(b, err)
	messages := make([]natslease.Message, n)
	for i := range messages {
		messages[i].ID = fmt.Sprintf("1365:%d", i)
	}
	_, err = q.Publish(ctx, messages)
	require.NoError(b, err)
	leases, err := q.Reserve(ctx, n, time.Second)
	require.NoError(b, err)
	require.Len(b, leases, n)
	items, results := make([]natslease.SettleItem, n), make([]natslease.SettleResult, n)
	for i, l := range leases {
		items[i].AckSubject, results[i].Status = l.AckSubject, natslease.Settled
	}
	f, err := New(c, Config{})
	require.NoError(b, err)
	m := &Member{fleet: f, id: Identity{"moths", "node", "0"}, epoch: 1, held: make(map[string]heldLease)}
	f.writer.running = true // nobody empties the queue but this benchmark
	bytes := 0
	for b.Loop() {
		m.Reserved(leases)
		m.Settled(q, natslease.Settlement{Kind: natslease.Ack}, items, results)
		if len(f.writer.queue) < 100 {
			continue
		}
		for _, message := range f.writer.assemble(f.writer.queue) {
			bytes += len(message.encode(time.Now()))
		}
		f.writer.queue, f.writer.queued = nil, 0
	}
	require.Zero(b, f.writer.dropped.Load())
	b.ReportMetric(float64(bytes)/float64(b.N*n), "B/task")
	f.writer.running = false
}
