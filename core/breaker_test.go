package natslease

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errRefused = newError(CodeConnectFailed, OutcomeNotSent, "refused")

// tripped is a breaker that has just opened.
func tripped(t *testing.T) *breaker {
	t.Helper()
	b := newBreaker(slog.New(slog.DiscardHandler))
	for range breakerTrips {
		counted, probe, err := b.begin()
		require.NoError(t, err)
		require.False(t, probe)
		counted(errRefused)
	}
	require.Equal(t, "open", b.stats().State)
	return b
}

func TestBreakerCoolsDownLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := make(map[time.Duration]bool)
		for range 20 {
			b := tripped(t)
			first[b.stats().RetryAfter] = true
			var before time.Duration
			for range 6 {
				cool := b.stats().RetryAfter
				require.GreaterOrEqual(t, cool, shortestCool)
				require.LessOrEqual(t, cool, longestCool)
				require.Greater(t, cool, before*3/4, "it grows, up to the jitter at its limit")
				before = cool
				time.Sleep(cool - time.Nanosecond)
				_, _, err := b.begin()
				var refused *Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, CodeCircuitOpen, refused.Code)
				require.Positive(t, refused.RetryAfter)
				time.Sleep(2 * time.Millisecond) // gobreaker's own timeout besides
				counted, probe, err := b.begin()
				require.NoError(t, err)
				require.True(t, probe)
				_, _, err = b.begin()
				require.Equal(t, CodeCircuitOpen, CodeOf(err), "one probe at a time")
				counted(errRefused)
				counted(nil) // a second word changes nothing
				require.Equal(t, "open", b.stats().State)
			}
			require.Greater(t, before, 3*time.Second)
		}
		require.Greater(t, len(first), 15, "processes must not probe in step")
	})
}

func TestBreakerCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []error{nil, newError(CodeAuthentication, OutcomeNotSent, ""), newError(CodePermissionDenied, OutcomeRejected, "")} {
			b := tripped(t)
			time.Sleep(longestCool)
			counted, probe, err := b.begin()
			require.NoError(t, err)
			require.True(t, probe)
			counted(end)
			require.Equal(t, BreakerStats{State: "closed", Opened: 1}, b.stats())
			counted, probe, err = b.begin()
			require.NoError(t, err)
			require.False(t, probe)
			counted(errRefused)
			require.Equal(t, "closed", b.stats().State, "it takes three again")
		}
	})
}

// What says nothing about the server neither opens nor closes it, and frees the place of the probe.
func TestBreakerIgnoresUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := tripped(t)
		time.Sleep(longestCool)
		for range 3 {
			counted, probe, err := b.begin()
			require.NoError(t, err)
			require.True(t, probe)
			counted(errClosed())
			require.Equal(t, "half-open", b.stats().State)
		}
		b = newBreaker(slog.New(slog.DiscardHandler))
		for range 10 {
			for _, end := range []error{configError("x"), errClosed(), newError(CodeAuthentication, OutcomeNotSent, "")} {
				counted, _, err := b.begin()
				require.NoError(t, err)
				counted(end)
			}
		}
		require.Equal(t, "closed", b.stats().State)
	})
}

func TestBreakerCountsInARow(t *testing.T) {
	t.Parallel()
	b := newBreaker(slog.New(slog.DiscardHandler))
	for range 10 {
		for range breakerTrips - 1 {
			b.failed(errors.New("lost"))
		}
		counted, _, err := b.begin()
		require.NoError(t, err)
		counted(nil)
	}
	require.Equal(t, BreakerStats{State: "closed"}, b.stats())
}
