package natslease

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// BenchmarkBreakerAndBounds is what every call pays for them: a place among the calls in flight, and a session that the
// breaker has let through.
func BenchmarkBreakerAndBounds(b *testing.B) {
	c, err := New(Config{Servers: []string{natstest.Start(b).URL()}})
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	defer func() { _ = c.Close(ctx) }()
	_, err = c.Ping(ctx)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		within, leave, err := c.begin(ctx, c.hub.reserving)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.hub.session(within); err != nil {
			b.Fatal(err)
		}
		leave()
	}
}

// BenchmarkOpenBreaker is what a call costs while the breaker is open.
func BenchmarkOpenBreaker(b *testing.B) {
	c, err := New(Config{Servers: []string{"nats://127.0.0.1:1"}})
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	defer func() { _ = c.Close(ctx) }()
	for range breakerTrips {
		_, err = c.Ping(ctx)
		require.Equal(b, CodeConnectFailed, CodeOf(err))
	}
	c.hub.breaker.mu.Lock()
	c.hub.breaker.until = time.Now().Add(time.Hour)
	c.hub.breaker.mu.Unlock()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Ping(ctx); CodeOf(err) != CodeCircuitOpen {
			b.Fatal(err)
		}
	}
}
