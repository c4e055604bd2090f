package pybind

import (
	"context"
	"sync"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// operation is one call of the core that is under way, or done and not yet taken.
type operation struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when answer is there

	mu     sync.Mutex
	answer []byte
	undo   func() // gives back what nobody took; nil when there is nothing
}

// operations are those behind tickets.
var operations table[*operation]

// call is how an operation is run: see the package documentation.
type call struct {
	ticket, timeout, slice, notifier int64
}

// work is the body of an operation: it returns an answer, and what to do should nobody take it.
type work func(ctx context.Context) (answer []byte, undo func())

// repeatable is the body of an operation that can be done again after it was interrupted: open says that more time may
// change its answer.
type repeatable func(ctx context.Context) (answer []byte, undo func(), open bool)

// runHere is run for operations that are short as a rule: the first slice is spent in the caller's own thread. Handing
// an operation to another thread, and its answer back, would take longer than the operation itself.
func runHere(c call, do repeatable) []byte {
	began := time.Now()
	if c.slice <= 0 {
		return run(c, once(do))
	}
	// The operation knows the deadline that it really has, and is interrupted earlier.
	deadline := began.Add(time.Duration(c.timeout))
	ctx, cancel := natslease.ThreadContext(deadline, earliest(deadline, began.Add(time.Duration(c.slice))))
	defer cancel()
	answer, undo, open := do(ctx)
	if !open || ctx.Err() == nil {
		o := &operation{cancel: cancel, done: closed, answer: answer, undo: undo}
		return o.answerWithin(c.ticket, 0)
	}
	c.timeout = max(int64(time.Until(deadline)), 1)
	c.slice = 1
	return run(c, once(do))
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func once(do repeatable) work {
	return func(ctx context.Context) ([]byte, func()) {
		answer, undo, _ := do(ctx)
		return answer, undo
	}
}

// closed is what operations have that are done from the start.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func run(c call, do work) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.timeout))
	o := &operation{cancel: cancel, done: make(chan struct{})}
	switch {
	case c.slice > 0:
		go o.work(ctx, do)
		return o.answerWithin(c.ticket, c.slice)
	case c.notifier == 0:
		detached.begin()
		go func() {
			defer detached.end()
			o.work(ctx, do)
		}()
	default:
		n, ok := notifiers.get(c.notifier)
		if !ok {
			cancel()
			return encodeError(unknownHandle("notifier", c.notifier))
		}
		operations.put(c.ticket, o)
		go func() {
			o.work(ctx, do)
			n.tell(c.ticket)
		}()
	}
	return []byte{answerPending}
}

func (o *operation) work(ctx context.Context, do work) {
	defer o.cancel()
	answer, undo := attempt(ctx, do)
	o.mu.Lock()
	o.answer, o.undo = answer, undo
	o.mu.Unlock()
	close(o.done)
}

func attempt(ctx context.Context, do work) (answer []byte, undo func()) {
	defer rescue(&answer)
	return do(ctx)
}

// answerWithin returns the answer, or that it is still pending after slice nanoseconds. The operation stays behind its
// ticket in the second case, and when something is to be undone unless it is taken.
func (o *operation) answerWithin(ticket, slice int64) []byte {
	if !o.wait(slice) {
		operations.put(ticket, o)
		return []byte{answerPending}
	}
	if o.undo != nil {
		operations.put(ticket, o)
	} else {
		operations.remove(ticket)
	}
	return flagLogs(o.answer)
}

func (o *operation) wait(slice int64) bool {
	if slice <= 0 {
		select {
		case <-o.done:
			return true
		default:
			return false
		}
	}
	timer := time.NewTimer(time.Duration(slice))
	defer timer.Stop()
	select {
	case <-o.done:
		return true
	case <-timer.C:
		return false
	}
}

// abandon ends an operation whose answer nobody will take. It does not wait.
func (o *operation) abandon() {
	o.cancel()
	detached.begin()
	go func() {
		defer detached.end()
		<-o.done
		o.mu.Lock()
		undo := o.undo
		o.mu.Unlock()
		if undo != nil {
			undo()
		}
	}()
}

// Wait waits for up to slice nanoseconds for the answer of an operation; it returns pending when there is none yet.
func Wait(ticket, slice int64) (answer []byte) {
	defer rescue(&answer)
	o, ok := operations.get(ticket)
	if !ok {
		return encodeError(unknownHandle("ticket", ticket))
	}
	return o.answerWithin(ticket, slice)
}

// Taken says that the leases behind the ticket have arrived. It returns 1, or 0 when nothing was behind it.
func Taken(ticket int64) (found int64) {
	defer func() { _ = recover() }()
	if _, ok := operations.remove(ticket); ok {
		return 1
	}
	return 0
}

// Cancel ends an operation and its ticket. Tasks that it has taken, or still takes, are given back. It does not wait. It
// returns 1, or 0 when nothing was behind the ticket.
func Cancel(ticket int64) (found int64) {
	defer func() { _ = recover() }()
	o, ok := operations.remove(ticket)
	if !ok {
		return 0
	}
	o.abandon()
	return 1
}

// Tickets returns how many tickets there are. Where no call is under way there are none, whatever came before.
func Tickets() int64 { return operations.size() }
