package natslease

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// bounds keeps the calls in flight below a limit: a call that finds no place within the longest wait is refused.
type bounds struct {
	places  *semaphore.Weighted
	longest time.Duration
	taken   atomic.Int64
}

func newBounds(limit int, longest time.Duration) *bounds {
	return &bounds{places: semaphore.NewWeighted(int64(limit)), longest: longest}
}

// enter takes a place; leave gives it back.
func (b *bounds) enter(ctx context.Context) error {
	if b.places.TryAcquire(1) {
		b.taken.Add(1)
		return nil
	}
	patience, cancel := context.WithTimeout(ctx, b.longest)
	defer cancel()
	if b.places.Acquire(patience, 1) == nil {
		b.taken.Add(1)
		return nil
	}
	if err := ctx.Err(); err != nil {
		e := inOperation("", err, OutcomeNotSent).(*Error)
		if e.Code == CodeDeadline {
			e.Message = "the deadline passed while it waited for a place among the calls in flight (MaxInFlight)"
		}
		return e
	}
	retryAfter := jittered(max(b.longest, 100*time.Millisecond))
	e := newError(CodeBusy, OutcomeNotSent, "this process already has as many calls in flight as MaxInFlight allows: try again in %s", retryAfter.Round(time.Millisecond))
	e.RetryAfter = retryAfter
	return e
}

func (b *bounds) leave() {
	b.taken.Add(-1)
	b.places.Release(1)
}
