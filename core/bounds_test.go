package natslease

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBoundsRefuseAfterTheLongestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, calls, longest = 4, 20, 300 * time.Millisecond
		b := newBounds(limit, longest)
		for range limit {
			require.NoError(t, b.enter(context.Background()))
		}
		started := time.Now()
		refused := make([]error, calls)
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() { refused[i] = b.enter(context.Background()) })
		}
		wg.Wait()
		require.Equal(t, longest, time.Since(started))
		require.Equal(t, int64(limit), b.taken.Load())
		retries := make(map[time.Duration]bool)
		for _, err := range refused {
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, CodeBusy, e.Code)
			require.Equal(t, OutcomeNotSent, e.Outcome)
			require.GreaterOrEqual(t, e.RetryAfter, longest/2)
			require.LessOrEqual(t, e.RetryAfter, longest)
			retries[e.RetryAfter] = true
		}
		require.Greater(t, len(retries), calls/2, "they must not come back in step")
	})
}

func TestBoundsGivePlacesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBounds(1, time.Second)
		require.NoError(t, b.enter(context.Background()))
		entered := make(chan error)
		go func() { entered <- b.enter(context.Background()) }()
		time.Sleep(500 * time.Millisecond)
		b.leave()
		require.NoError(t, <-entered)
		b.leave()
		require.Zero(t, b.taken.Load())
	})
}

func TestBoundsHeedTheCallersContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBounds(1, time.Second)
		require.NoError(t, b.enter(context.Background()))
		for want, end := range map[Code]func() (context.Context, context.CancelFunc){
			CodeDeadline: func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), 100*time.Millisecond)
			},
			CodeCanceled: func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(100*time.Millisecond, cancel)
				return ctx, cancel
			},
		} {
			ctx, cancel := end()
			started := time.Now()
			err := b.enter(ctx)
			require.Equal(t, 100*time.Millisecond, time.Since(started))
			require.Equal(t, want, CodeOf(err))
			require.Equal(t, OutcomeNotSent, err.(*Error).Outcome)
			cancel()
		}
		require.Equal(t, int64(1), b.taken.Load())
	})
}
