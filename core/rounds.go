package natslease

import (
	"context"
	"errors"
	"sync"
	"time"
)

// rounds serves many calls with few runs of the same work. Unlike with a singleflight, a call is only served by a run
// that began after the call: what the run finds out is true of a moment that the caller has seen.
type rounds[T any] struct {
	spawn   func(func(ctx context.Context)) bool // runs a goroutine with an owner and an end; false when it cannot
	run     func(ctx context.Context) (T, error)
	spacing time.Duration                    // between the beginnings of two runs
	overdue func(ctx context.Context) *Error // the error of a call whose context has ended

	mu      sync.Mutex
	next    *round[T] // has not begun; nil when nobody wants it
	running *round[T] // nil for none
	busy    bool      // a goroutine is there
	began   time.Time
}

type round[T any] struct {
	done  chan struct{}
	value T
	err   error
	on    *session // the newest that a call in it is bound to
	free  bool     // there is a call in it that is bound to none
	cut   bool     // its own time ran out, which says nothing about a caller's
}

// do returns the result of a run that begins after the call. A call that is bound to a session ends with it, and has no run
// made that would open another.
func (r *rounds[T]) do(ctx context.Context, on *session) (T, error) {
	var ended <-chan struct{}
	if on != nil {
		ended = on.ended
	}
	for {
		mine := r.join(on)
		select {
		case <-mine.done:
			if !mine.cut {
				return mine.value, mine.err
			}
		case <-ended:
			var zero T
			return zero, on.cause
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			var zero T
			return zero, r.overdue(ctx)
		}
	}
}

// wait returns when the run that is under way, if there is one, has ended.
func (r *rounds[T]) wait(ctx context.Context) {
	r.mu.Lock()
	running := r.running
	r.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running.done:
	case <-ctx.Done():
	}
}

// poke starts a run unless one is under way, and waits for nothing.
func (r *rounds[T]) poke() {
	r.mu.Lock()
	busy := r.busy
	r.mu.Unlock()
	if !busy {
		r.join(nil)
	}
}

func (r *rounds[T]) join(on *session) *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
	}
	mine := r.next
	switch {
	case on == nil:
		mine.free = true
	case mine.on == nil || mine.on.generation < on.generation:
		mine.on = on
	}
	if !r.busy {
		r.start()
	}
	return mine
}

// start has the next run made; r.mu is held.
func (r *rounds[T]) start() {
	r.busy = r.spawn(r.work)
	if r.busy {
		return
	}
	r.next.err = newError(CodeClientClosed, OutcomeNotSent, "the client was closed")
	close(r.next.done)
	r.next = nil
}

func (r *rounds[T]) work(ctx context.Context) {
	if pause := r.spacing - time.Since(r.began); pause > 0 {
		sleep(ctx, pause)
	}
	r.mu.Lock()
	mine := r.next
	r.next, r.running = nil, mine
	r.mu.Unlock()
	r.began = time.Now() // of this goroutine until the next is started
	if mine.free || mine.on.alive() {
		mine.value, mine.err = r.run(ctx)
	} else {
		mine.err = mine.on.lostBefore()
	}
	mine.cut = errors.Is(mine.err, context.DeadlineExceeded) || errors.Is(mine.err, context.Canceled)
	close(mine.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy, r.running = false, nil
	if r.next != nil {
		r.start()
	}
}
