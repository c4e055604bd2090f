package natslease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A goroutine that is locked to its thread, as those of calls from C are, is slow to wake: another thread has to give up
// its place in the scheduler for it. Such a caller may wait in the kernel instead, from where the goroutine that has its
// answer wakes it directly. For the same reason it is spared timers: each would wake a thread to look after it.

// threadContext is the context of a call on a thread of its own. Its Done channel is made when somebody asks for it.
type threadContext struct {
	deadline  time.Time
	interrupt time.Time

	mu    sync.Mutex
	done  chan struct{}
	timer *time.Timer
	err   error
}

// ThreadContext is for calls by a goroutine that is locked to its thread. The calls know the deadline, and are cancelled
// at the time of interrupt, or by the returned function; until then they may block the thread.
func ThreadContext(deadline, interrupt time.Time) (context.Context, context.CancelFunc) {
	c := &threadContext{deadline: deadline, interrupt: interrupt}
	return c, func() { c.end(context.Canceled) }
}

func (c *threadContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *threadContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else {
			c.timer = time.AfterFunc(time.Until(c.interrupt), func() { c.end(c.cause()) })
		}
	}
	return c.done
}

func (c *threadContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err == nil && !time.Now().Before(c.interrupt) {
		err = c.cause()
		c.end(err)
	}
	return err
}

func (c *threadContext) Value(any) any { return nil }

func (c *threadContext) cause() error {
	if time.Now().Before(c.deadline) {
		return context.Canceled
	}
	return context.DeadlineExceeded
}

func (c *threadContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.done != nil {
		close(c.done)
	}
}

// doze lets one goroutine with a thread of its own wait for a signal that it also gets otherwise.
type doze struct {
	word     atomic.Uint32
	sleeping atomic.Bool
}

// sleep returns whether ready says that the signal has been given. It waits for that, but only if the context is that of
// a call on a thread of its own, and until that is interrupted.
func (z *doze) sleep(ctx context.Context, until time.Time, ready func() bool) bool {
	c, ok := ctx.(*threadContext)
	if !ok {
		return false
	}
	if c.interrupt.Before(until) {
		until = c.interrupt
	}
	for {
		// In this order: a rouse after the look at ready finds word to be set, or the thread asleep.
		z.word.Store(0)
		z.sleeping.Store(true)
		given := ready()
		d := time.Until(until)
		if !given && d > 0 {
			sleepOn(&z.word, d)
		}
		z.sleeping.Store(false)
		if given || d <= 0 {
			return given
		}
	}
}

// alarm wakes one goroutine. It keeps what it is rung before somebody waits, once.
type alarm struct {
	rung chan struct{}
	doze doze
}

func newAlarm() *alarm { return &alarm{rung: make(chan struct{}, 1)} }

func (a *alarm) ring() {
	select {
	case a.rung <- struct{}{}:
	default:
	}
	a.doze.rouse()
}

// sleep waits like doze.sleep, and uses up the ring that it returns true for.
func (a *alarm) sleep(ctx context.Context, until time.Time) bool {
	if !a.doze.sleep(ctx, until, a.isRung) {
		return false
	}
	<-a.rung
	return true
}

func (a *alarm) isRung() bool { return len(a.rung) > 0 }

// rouse ends a sleep. The signal must have been given before.
func (z *doze) rouse() {
	z.word.Store(1)
	if z.sleeping.Load() {
		wakeOn(&z.word)
	}
}
