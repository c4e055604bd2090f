package pybind

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
)

// The files in tests/data/wire are read by this package's tests and by those of natslease/_wire.py: what one side
// writes the other reads. `go test ./pybind -update` writes the answers anew; the Python tests write the requests.
var update = flag.Bool("update", false, "write the golden answers")

const goldenAck = "$JS.ACK.images.workers.3.17.21.1700000000123456789.5"

func goldenPath(name string) string { return filepath.Join("..", "tests", "data", "wire", name+".bin") }

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(goldenPath(name))
	require.NoError(t, err)
	return b
}

func requireGolden(t *testing.T, name string, answer []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(goldenPath(name), answer, 0o644))
	}
	require.Equal(t, golden(t, name), answer)
}

// goldenClock is the moment of all golden files.
func goldenClock() clock {
	return clock{now: time.Unix(1_700_000_100, 0), wall: 1_700_000_100_000_000_000, monotonic: 5_000_000_000}
}

func goldenLease() *natslease.Lease {
	return &natslease.Lease{
		AckSubject: goldenAck, Subject: "image.tasks", Data: []byte("\x00data\xff"), ID: "task-17",
		Header:  natslease.Header{"A": {"1"}, "B": {"2", "ü"}},
		Attempt: 3, Seq: 17, ConsumerSeq: 21, Pending: 5, Published: time.Unix(0, 1_700_000_000_123_456_789),
		Expires: goldenClock().now.Add(30 * time.Second),
	}
}

func goldenLetter() natslease.DeadLetter {
	lease := goldenLease()
	return natslease.DeadLetter{
		Stream: "images", Consumer: "workers", Seq: 17, Published: lease.Published, Subject: lease.Subject, ID: lease.ID,
		Data: lease.Data, Header: lease.Header, Attempts: 3, Reason: "broken ü", Worker: "a worker",
		Died: time.Unix(0, 1_700_000_060_000_000_000),
	}
}

func TestGoldenAnswers(t *testing.T) {
	lost := &natslease.Error{
		Code: natslease.CodeConnectionLost, Outcome: natslease.OutcomeUnknown, Operation: "ack", Message: "the connection ended",
		RetryAfter: 250 * time.Millisecond,
	}
	now := goldenClock()
	for name, answer := range map[string][]byte{
		"answer-error":   encodeError(lost),
		"answer-pending": {answerPending},
		"answer-numbers": encodeNumbers(-1, 0, 1<<62),
		"answer-leases":  encodeLeases([]*natslease.Lease{goldenLease(), {AckSubject: "x", Published: time.Unix(0, 0)}}, 0, now),
		"answer-empty":   encodeLeases(nil, 250*time.Millisecond, now),
		"answer-plain":   encodeResults([]natslease.SettleResult{{Status: natslease.Settled}, {Status: natslease.Settled}}, natslease.Ack, now),
		"answer-results": encodeResults([]natslease.SettleResult{
			{Status: natslease.Settled, Late: true},
			{Status: natslease.Gone, Err: lost},
			{Status: natslease.Unknown, Err: lost},
			{Status: natslease.Expired, Expires: now.now.Add(time.Second)},
			{Status: natslease.Invalid},
			{Status: natslease.Rejected},
		}, natslease.Nak, now),
		"answer-report": encodeReport(natslease.PublishReport{Results: []natslease.PublishResult{
			{ID: "a", Seq: 7},
			{ID: "bb", Seq: 3, Duplicate: true},
			{ID: "ü", Err: lost},
			{ID: "d", Err: lost},
		}}),
		"answer-letters": encodeLetters([]natslease.DeadLetter{goldenLetter(), {Published: time.Unix(0, 1), Died: time.Unix(0, 2)}}),
	} {
		t.Run(name, func(t *testing.T) { requireGolden(t, name, answer) })
	}
}

func TestGoldenRequests(t *testing.T) {
	now := goldenClock()

	items, reason, err := decodeItems(golden(t, "request-items"), now)
	require.NoError(t, err)
	assert.Equal(t, "broken ü", reason)
	require.Len(t, items, 2)
	assert.Equal(t, goldenAck, items[0].AckSubject)
	assert.Equal(t, now.now.Add(30*time.Second), items[0].Expires)
	assert.Equal(t, natslease.SettleItem{AckSubject: "x"}, items[1])

	items, err = decodeReturns(golden(t, "request-returns"), now)
	require.NoError(t, err)
	require.Len(t, items, 2)
	lease := goldenLease()
	assert.Equal(t, goldenAck, items[0].AckSubject)
	require.NotNil(t, items[0].Lease)
	assert.True(t, lease.Published.Equal(items[0].Lease.Published))
	items[0].Lease.Published = lease.Published
	assert.Equal(t, lease, items[0].Lease)
	assert.Equal(t, natslease.SettleItem{AckSubject: "x"}, items[1])

	names, err := decodeNames(golden(t, "request-names"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	assert.Equal(t, natslease.DeadLetter{Stream: "images", Consumer: "workers", Seq: 17, Published: names[0].Published}, names[0])
	assert.Equal(t, goldenLetter().Published.UnixNano(), names[0].Published.UnixNano())

	messages, err := decodeMessages(golden(t, "request-messages"))
	require.NoError(t, err)
	assert.Equal(t, []natslease.Message{
		{Data: []byte{}},
		{Data: []byte("\x00data\xff"), ID: "task-17", Header: natslease.Header{"A": {"1"}, "B": {"2", "ü"}}},
	}, messages)
}

// What a request says of lengths and numbers must not make the process panic or take memory without end.
func FuzzRequests(f *testing.F) {
	for _, name := range []string{"request-items", "request-returns", "request-messages", "request-names"} {
		b, err := os.ReadFile(goldenPath(name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _, _ = decodeItems(body, goldenClock())
		_, _ = decodeReturns(body, goldenClock())
		_, _ = decodeMessages(body)
		_, _ = decodeNames(body)
	})
}
