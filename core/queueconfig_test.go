package natslease

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQueueConfigDefaults(t *testing.T) {
	t.Parallel()
	q, err := QueueConfig{Stream: "jobs"}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, QueueConfig{
		AckWait: time.Minute, Consumer: "jobs", Discard: "new", DuplicateWindow: 2 * time.Minute, MaxAckPending: 1000,
		MaxDeliver: 5, Replicas: 1, Retention: "workqueue", Storage: "file", Stream: "jobs", Subject: "jobs",
	}, q)
	again, err := q.withDefaults()
	require.NoError(t, err)
	require.Equal(t, q, again)
}

func TestQueueConfigAccepts(t *testing.T) {
	t.Parallel()
	for _, q := range []QueueConfig{
		{Stream: "job_1365", Subject: "job.1365.tasks", Consumer: "job-1365-consumer", AckWait: 5 * time.Minute, MaxDeliver: 2},
		{Stream: "größe", MaxDeliver: -1, Retention: "limits", Storage: "memory", Discard: "old", Replicas: 5, MaxAge: time.Hour},
		{Stream: strings.Repeat("x", 255), Subject: strings.Repeat("y", maxSubject)},
	} {
		_, err := q.withDefaults()
		require.NoError(t, err)
	}
}

func TestQueueConfigReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := QueueConfig{
		AckWait: -1, Consumer: "a b", Discard: "oldest", DuplicateWindow: 1, MaxAckPending: -1, MaxAge: -1, MaxBytes: -1,
		MaxDeliver: -2, MaxMessages: -1, Replicas: 6, Retention: "interest", Storage: "tape", Subject: "a.*",
	}.withDefaults()
	requireProblems(t, err, "AckWait", "Consumer", "Discard", "DuplicateWindow", "MaxAckPending", "MaxAge", "MaxBytes",
		"MaxDeliver", "MaxMessages", "Replicas", "Retention", "Storage", "Stream", "Subject")
}

func TestQueueConfigRefusesNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		" ", "a b", "a.b", "a*", ">", "a/b", `a\b`, "a\tb", "a\r\nPUB x 0", "\x00", "a\x7f", "a\u00a0b", "a\u2028", "\xff", "\u200b",
		strings.Repeat("x", 256), strings.Repeat("x", 1<<20),
	} {
		_, err := QueueConfig{Stream: name}.withDefaults()
		requireProblems(t, err, "Stream")
		require.Less(t, len(err.Error()), 400)
		_, err = QueueConfig{Stream: "ok", Consumer: name}.withDefaults()
		requireProblems(t, err, "Consumer")
	}
	_, err := QueueConfig{}.withDefaults()
	requireProblems(t, err, "Stream")
}

func TestQueueConfigRefusesSubjects(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{
		" ", "a b", "a.*", "a.>", "*", ".a", "a.", "a..b", ".", "a\r\nb", "a\tb", "\xff", "$JS.API.STREAM.PURGE.x", "$KV.b.k", "$SYS",
		strings.Repeat("x", maxSubject+1), strings.Repeat("x.", 1<<19),
	} {
		_, err := QueueConfig{Stream: "ok", Subject: subject}.withDefaults()
		requireProblems(t, err, "Subject")
		require.Less(t, len(err.Error()), 400)
	}
}
