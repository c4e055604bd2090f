package natstest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// failures counts what an assertion reports.
type failures struct {
	testing.TB
	count int
}

func (f *failures) Helper()               {}
func (f *failures) Logf(string, ...any)   {}
func (f *failures) Errorf(string, ...any) { f.count++ }

func TestLatenessMeasure(t *testing.T) {
	t.Parallel()
	var l Lateness
	early := l.Measure(time.Now().Add(20*time.Millisecond), func() {})
	require.Zero(t, early)
	late := l.Measure(time.Now().Add(10*time.Millisecond), func() { time.Sleep(110 * time.Millisecond) })
	require.Greater(t, late, 50*time.Millisecond)
	require.Equal(t, 2, l.Len())
	require.Equal(t, late, l.Percentile(1))
}

func TestLatenessAssert(t *testing.T) {
	t.Parallel()
	repeat := func(n int, d time.Duration) []time.Duration {
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = d
		}
		return all
	}
	beyond := 1
	if RaceDetector {
		beyond = 0
	}
	for name, c := range map[string]struct {
		late     []time.Duration
		failures int
	}{
		"nothing":           {nil, 0},
		"few, within":       {repeat(10, 249*time.Millisecond), 0},
		"few, beyond":       {repeat(10, 251*time.Millisecond), 1},
		"many, within":      {append(repeat(2000, time.Millisecond), 200*time.Millisecond), 0},
		"many, beyond":      {repeat(2000, 60*time.Millisecond), beyond},
		"many, much beyond": {repeat(2000, 300*time.Millisecond), 1 + beyond},
	} {
		l := Lateness{late: c.late}
		f := &failures{TB: t}
		l.Assert(f)
		require.Equal(t, c.failures, f.count, name)
	}
}
