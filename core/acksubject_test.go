package natslease

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// text writes an ack subject as a server does; it is the inverse of ParseAckSubject.
func (a AckSubject) text() string {
	where := ""
	if a.Account != "" {
		domain := a.Domain
		if domain == "" {
			domain = "_"
		}
		where = domain + "." + a.Account + "."
	}
	return fmt.Sprintf("$JS.ACK.%s%s.%s.%d.%d.%d.%d.%d", where, a.Stream, a.Consumer, a.Delivered, a.StreamSeq, a.ConsumerSeq,
		a.Published.UnixNano(), a.Pending)
}

const (
	shortAck = "$JS.ACK.job_8.job-8-consumer.2.17.19.1700000000123456789.5"
	longAck  = "$JS.ACK.hub.ACCHASH1.job_8.job-8-consumer.2.17.19.1700000000123456789.5"
)

func TestParseAckSubject(t *testing.T) {
	t.Parallel()
	want := AckSubject{
		Stream: "job_8", Consumer: "job-8-consumer", Delivered: 2, StreamSeq: 17, ConsumerSeq: 19,
		Published: time.Unix(0, 1700000000123456789), Pending: 5,
	}
	got, err := ParseAckSubject(shortAck)
	require.NoError(t, err)
	require.Equal(t, want, got)

	want.Domain, want.Account = "hub", "ACCHASH1"
	for _, tail := range []string{"", ".RaNdOm", ".a.b.c"} {
		got, err = ParseAckSubject(longAck + tail)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}

	want.Domain = ""
	got, err = ParseAckSubject(strings.Replace(longAck, "hub", "_", 1))
	require.NoError(t, err)
	require.Equal(t, want, got)

	long := strings.Repeat("x", maxNameLen)
	widest := AckSubject{
		Domain: long, Account: "ACCHASH1", Stream: long, Consumer: long, Delivered: math.MaxInt32, StreamSeq: math.MaxUint64,
		ConsumerSeq: math.MaxUint64, Published: time.Unix(0, math.MaxInt64), Pending: math.MaxUint64,
	}
	got, err = ParseAckSubject(widest.text())
	require.NoError(t, err)
	require.Equal(t, widest, got)
}

func TestParseAckSubjectOfServers(t *testing.T) {
	t.Parallel()
	js := natstest.JetStream(t, natstest.Start(t).URL())
	ctx := t.Context()
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "größe", Subjects: []string{"s"}})
	require.NoError(t, err)
	for range 2 {
		_, err = js.Publish(ctx, "s", nil)
		require.NoError(t, err)
	}
	// A consumer that is there before may count the second message a little after it has given out the first.
	consumer, err := js.CreateConsumer(ctx, "größe", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	m, err := consumer.Next()
	require.NoError(t, err)
	meta, err := m.Metadata()
	require.NoError(t, err)
	got, err := ParseAckSubject(m.Reply())
	require.NoError(t, err)
	require.Equal(t, "größe", got.Stream)
	require.Equal(t, "c", got.Consumer)
	require.Equal(t, meta.NumDelivered, got.Delivered)
	require.Equal(t, meta.Sequence.Stream, got.StreamSeq)
	require.Equal(t, meta.Sequence.Consumer, got.ConsumerSeq)
	require.Equal(t, uint64(1), got.Pending)
	require.True(t, meta.Timestamp.Equal(got.Published))
}

func TestParseAckSubjectRefuses(t *testing.T) {
	t.Parallel()
	with := func(old, replacement string) string {
		changed := strings.Replace(shortAck, old, replacement, 1)
		require.NotEqual(t, shortAck, changed)
		return changed
	}
	for _, forged := range []string{
		"", ".", "$JS", "$JS.ACK", "$JS.ACK.", "$JS.API.STREAM.PURGE.job_8", "$JS.API.CONSUMER.DELETE.a.b", "job.8.tasks",
		"$js.ack" + shortAck[7:], "x" + shortAck, " " + shortAck, shortAck + " ", shortAck + "\r\n", shortAck + "\r\nPUB x 0\r\n\r\n",
		shortAck + ".", shortAck + ".x" /* 10 tokens */, longAck[:strings.LastIndexByte(longAck, '.')],
		with("job_8", ""), with("job_8", "*"), with("job_8", ">"), with("job_8", "a b"), with("job_8", "a\tb"), with("job_8", "a\x00b"),
		with("job_8", "a/b"), with("job_8", `a\b`), with("job_8", "a\u2028b"), with("job_8", "a\xffb"), with("job_8", "a\u00a0b"),
		with("job-8-consumer", "*"), with("job-8-consumer", "job_*"), with("job-8-consumer", strings.Repeat("x", 256)),
		with(".2.", ".0."), with(".2.", ".-2."), with(".2.", ".+2."), with(".2.", ".02."), with(".2.", ".2e1."), with(".2.", ".2147483648."),
		with(".17.", ".0."), with(".17.", ".x."), with(".17.", ".18446744073709551616."), with(".17.", ".99999999999999999999."),
		with(".17.", ".184467440737095516150."), with(".19.", ".0."), with(".19.", ".１９."),
		with("1700000000123456789", "9223372036854775808"), with("1700000000123456789", "-1"), with("1700000000123456789", ""),
		with("789.5", "789.-5"), with("789.5", "789.05"), with("789.5", "789.*"),
		longAck + ".*", longAck + "..", longAck + ".a b", "$JS.ACK.*.ACCHASH1" + longAck[20:],
		shortAck + strings.Repeat(".x", 600), strings.Repeat("x", 1<<20), "$JS.ACK." + strings.Repeat("1.", 1<<19),
	} {
		a, err := ParseAckSubject(forged)
		var e *Error
		require.ErrorAs(t, err, &e, "%.80q", forged)
		require.Equal(t, CodeInvalidLease, e.Code)
		require.Equal(t, OutcomeRejected, e.Outcome)
		require.Less(t, len(e.Error()), 300)
		require.NotContains(t, e.Error(), "\n")
		require.Zero(t, a)
	}
}

func TestParseAckSubjectAllocatesNothing(t *testing.T) {
	for _, s := range []string{shortAck, longAck} {
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = ParseAckSubject(s) }))
	}
}

func TestParseAckSubjectRefusesMuchTextAtOnce(t *testing.T) {
	t.Parallel()
	huge := shortAck + strings.Repeat(".x", 1<<19)
	started := time.Now()
	for range 1000 {
		_, err := ParseAckSubject(huge)
		require.Error(t, err)
	}
	require.Less(t, time.Since(started), 5*time.Second)
}

func BenchmarkParseAckSubject(b *testing.B) {
	for b.Loop() {
		if _, err := ParseAckSubject(shortAck); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseAckSubject(f *testing.F) {
	f.Add(shortAck)
	f.Add(longAck)
	f.Add(longAck + ".RaNdOm")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAckSubject(s)
		if err != nil {
			require.Equal(t, CodeInvalidLease, CodeOf(err))
			require.Less(t, len(err.Error()), 400)
			return
		}
		require.True(t, strings.HasPrefix(s, "$JS.ACK."))
		require.False(t, strings.ContainsAny(s, " \t\r\n\x00*>"))
		require.NotContains(t, s, "..")
		require.Empty(t, checkName(a.Stream))
		require.Empty(t, checkName(a.Consumer))
		// What was read is what was written, up to the random tail that a server may append.
		written := a.text()
		require.True(t, s == written || strings.HasPrefix(s, written+"."), "%q and %q", s, written)
		again, err := ParseAckSubject(written)
		require.NoError(t, err)
		require.Equal(t, a, again)
	})
}
