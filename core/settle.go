package natslease

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// SettleKind is what is done to a lease.
type SettleKind int

const (
	// Ack: done.
	Ack SettleKind = iota + 1
	// Nak: it failed, try again later. Uses up a delivery.
	Nak
	// Release: not started, somebody else take it.
	Release
	// Extend: still working; the lease's time starts anew.
	Extend
	// Term: it failed for good, do not offer it again.
	Term
)

// String gives the operation's name.
func (k SettleKind) String() string {
	switch k {
	case Ack:
		return "ack"
	case Nak:
		return "nak"
	case Release:
		return "release"
	case Extend:
		return "extend"
	case Term:
		return "term"
	}
	return fmt.Sprintf("settle(%d)", int(k))
}

// Settlement is what is done to the leases of one call.
type Settlement struct {
	Kind   SettleKind
	Delay  time.Duration // Nak: until it is offered again
	Reason string        // Term: goes into the server's advisory; Nak: into the dead letter, should it be the last attempt

	deadLetters string // the stream for tasks that a Nak would end; "" for none
}

// payload is what the server understands. A release has none of its own: see release.go.
func (s Settlement) payload() ([]byte, error) {
	switch s.Kind {
	case Ack:
		return []byte("+ACK"), nil
	case Nak:
		if s.Delay < 0 {
			return nil, configError("delay is %s: it must not be negative", s.Delay)
		}
		if s.Delay == 0 {
			return []byte("-NAK"), nil
		}
		return fmt.Appendf(nil, `-NAK {"delay":%d}`, s.Delay.Nanoseconds()), nil
	case Release:
		return []byte("-NAK"), nil
	case Extend:
		return []byte("+WPI"), nil
	case Term:
		if s.Reason == "" {
			return []byte("+TERM"), nil
		}
		return []byte("+TERM " + strings.ToValidUTF8(s.Reason, "?")), nil
	}
	return nil, configError("settle kind %d does not exist", int(s.Kind))
}

// SettleItem names one lease: by itself, or by its ack subject from another process.
type SettleItem struct {
	AckSubject string
	Expires    time.Time // zero when it is not known
	Lease      *Lease    // when at hand; lets Release hand it on without asking the server
}

// SettleStatus is how settling one lease ended.
type SettleStatus string

const (
	// Settled: the server has confirmed it.
	Settled SettleStatus = "settled"
	// Gone: stream or consumer no longer exist, which the server has confirmed; also where others of their name do.
	Gone SettleStatus = "gone"
	// Unknown: no word from the server before the deadline; it may have happened.
	Unknown SettleStatus = "unknown"
	// Expired: the lease ran out, and what was asked could harm its next holder: nothing was sent.
	Expired SettleStatus = "expired"
	// Invalid: not a lease of this queue: nothing was sent.
	Invalid SettleStatus = "invalid"
	// Rejected: the server refused, for the reason in Err.
	Rejected SettleStatus = "rejected"
)

// SettleResult is how settling one lease ended. Err is nil when Status is Settled.
type SettleResult struct {
	Status  SettleStatus
	Late    bool      // an ack that was sent after its lease had run out
	Expires time.Time // Extend: when the lease runs out now
	Err     *Error
}

// Settle settles leases of this queue and waits for the server's word on each. The error is for a call that could not
// be made at all; what happened to each lease is in its result.
func (q *Queue) Settle(ctx context.Context, s Settlement, items []SettleItem) ([]SettleResult, error) {
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return nil, inOperation(s.Kind.String(), err, OutcomeNotSent)
	}
	defer cancel()
	s.deadLetters = q.cfg.DeadLetters
	results, err := q.feed.settle(ctx, s, items)
	if t := q.client.tracker.Load(); t != nil && err == nil {
		(*t).Settled(q, s, items, results)
	}
	return results, err
}

// settle needs a context with a deadline.
func (f *feed) settle(ctx context.Context, s Settlement, items []SettleItem) ([]SettleResult, error) {
	operation := s.Kind.String()
	payload, err := s.payload()
	if err != nil {
		return nil, inOperation(operation, err, OutcomeRejected)
	}
	c := &settleCall{
		operation: operation, payload: payload, items: items, repeatable: s.Kind == Ack || s.Kind == Term || s.Kind == Extend,
		results: make([]SettleResult, len(items)), finished: make(chan struct{}),
	}
	todo := f.refuseOlder(ctx, c, f.admit(c, s.Kind))
	switch {
	case s.Kind == Release:
		todo = f.release(ctx, c, todo)
	case s.Kind == Nak && s.deadLetters != "":
		todo = f.bury(ctx, c, s, todo)
	}
	f.confirm(ctx, c, todo)
	f.conclude(c, s)
	return c.results, nil
}

// admit refuses what is no lease of this queue, and what an expired lease may no longer do. It returns the indices of
// the rest. Nothing has been sent yet.
func (f *feed) admit(c *settleCall, kind SettleKind) []int {
	now := time.Now()
	todo := make([]int, 0, len(c.items))
	for i := range c.items {
		item := &c.items[i]
		ack, err := ParseAckSubject(item.AckSubject)
		if err == nil && (ack.Stream != f.stream || ack.Consumer != f.consumer) {
			err = newError(CodeInvalidLease, OutcomeRejected, "it is a lease of another queue, not of %s/%s", f.stream, f.consumer)
		}
		if err != nil {
			c.fail(i, Invalid, inOperation(c.operation, err, OutcomeRejected).(*Error))
			continue
		}
		if !item.Expires.IsZero() && now.After(item.Expires) && now.After(f.hub.keeper.keptUntil(item.AckSubject)) {
			if kind != Ack {
				c.fail(i, Expired, newError(CodeLeaseExpired, OutcomeRejected,
					"the lease ran out %s ago: the task may be somebody else's now", now.Sub(item.Expires).Round(time.Millisecond)))
				continue
			}
			c.results[i].Late = true
		}
		todo = append(todo, i)
	}
	return todo
}

// conclude draws the local consequences of what was settled.
func (f *feed) conclude(c *settleCall, s Settlement) {
	if s.Kind != Extend {
		f.hub.keeper.forget(c.items)
		f.settled(s)
		return
	}
	ackWait := f.known().ackWait
	for i := range c.results {
		if r := &c.results[i]; r.Status == Settled && ackWait > 0 {
			r.Expires = expiry(c.sent, ackWait)
		}
	}
}

// confirm sends one request for each index and collects the answers under the call's one deadline, on one session. Where
// nobody listens, the server is asked why: "gone" is said only when it says so, else the request is repeated.
func (f *feed) confirm(ctx context.Context, c *settleCall, todo []int) {
	var wait backoff
	s, err := f.hub.session(ctx)
	if err != nil {
		c.failAll(todo, err)
		return
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		if !f.send(ctx, s, c, todo) {
			return
		}
		todo = c.takeUnheard()
		if silent := c.takeSilent(); len(silent) > 0 {
			todo, c.repeated = append(todo, silent...), true
			continue
		}
		if len(todo) == 0 {
			return
		}
		if err := soon(ctx, attempt, func(ctx context.Context) error { return f.exists(ctx, s) }); err != nil {
			switch {
			case CodeOf(err) == CodeQueueNotFound:
				for _, i := range todo {
					c.fail(i, Gone, &Error{Code: CodeLeaseGone, Outcome: OutcomeRejected, Message: "its queue no longer exists", Cause: err})
				}
			case ctx.Err() != nil:
				c.failAll(todo, interrupted(ctx, noLeader()))
			default:
				c.failAll(todo, asOperation(c.operation, err).unsent()) // it is the question's outcome
			}
			return
		}
		if !sleep(ctx, wait.delay()) {
			c.failAll(todo, interrupted(ctx, noLeader()))
			return
		}
	}
}

func noLeader() *Error { return outOfTime("the queue had no leader until the deadline") }

// send makes one round of requests on one session. It returns false when the call is over.
func (f *feed) send(ctx context.Context, s *session, c *settleCall, todo []int) bool {
	id, err := s.register(c)
	if err != nil {
		e := asOperation(c.operation, err)
		if c.repeated {
			e = e.maybeSent()
		}
		c.failAll(todo, e)
		return false
	}
	defer s.unregister(id)
	c.begin(todo)
	s.wire.cork()
	for k, i := range todo {
		if err := s.publish(c.items[i].AckSubject, s.subject(id, i), nil, c.payload); err != nil {
			c.unsent(todo[k:], err)
			break
		}
	}
	s.wire.uncork()
	wait := lazyTimer{at: distant}
	if c.repeatable {
		wait.at = c.sent.Add(settleSilence)
	}
	defer wait.stop()
	if c.doze.sleep(ctx, wait.at, c.isFinished) {
		return true
	}
	select {
	case <-c.finished:
		return true
	case <-wait.fires():
		return true
	case <-ctx.Done():
		c.giveUp(s.overdue(ctx))
		return false
	}
}

// settleSilence is how long an answer is awaited before what does no harm twice is sent again: it may have been lost on
// its way to a leader that stepped down.
const settleSilence = 2 * time.Second

func asOperation(operation string, err error) *Error {
	return inOperation(operation, err, OutcomeUnknown).(*Error)
}

// settleCall is one call of Settle. After begin its results belong to mu.
type settleCall struct {
	operation string
	payload   []byte
	items     []SettleItem
	sent      time.Time
	// repeatable: sending it twice does no more than once. A second NAK would take the task from its next holder.
	repeatable bool
	repeated   bool

	mu       sync.Mutex
	results  []SettleResult
	waiting  []bool // by item
	left     int    // how many of them are true
	unheard  []int  // nobody listened
	finished chan struct{}
	doze     doze
}

// distant is later than any call ends.
var distant = time.Now().AddDate(100, 0, 0)

func (c *settleCall) isFinished() bool {
	select {
	case <-c.finished:
		return true
	default:
		return false
	}
}

func (c *settleCall) begin(todo []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = time.Now()
	c.waiting = make([]bool, len(c.items))
	c.left = len(todo)
	for _, i := range todo {
		c.waiting[i] = true
	}
	c.finished = make(chan struct{})
}

// heard ends the waiting for one item and returns whether there was any; c.mu is held.
func (c *settleCall) heard(i int) bool {
	if i < 0 || i >= len(c.waiting) || !c.waiting[i] {
		return false
	}
	c.waiting[i] = false
	c.left--
	if c.left == 0 {
		close(c.finished)
		c.doze.rouse()
	}
	return true
}

func (c *settleCall) reply(i int, m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.heard(i):
	case isNoResponders(m):
		c.unheard = append(c.unheard, i)
	default:
		c.results[i].Status = Settled
	}
}

func (c *settleCall) denied(subject string, err *Error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	matched := false
	for i := range c.items {
		if c.items[i].AckSubject == subject {
			matched = true
			if c.heard(i) {
				c.fail(i, Rejected, err)
			}
		}
	}
	return matched
}

func (c *settleCall) lost(err *Error) { c.giveUp(err) }

// giveUp ends the waiting for all items that have no answer.
func (c *settleCall) giveUp(err *Error) {
	err = asOperation(c.operation, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.waiting {
		if c.heard(i) {
			c.fail(i, Unknown, err)
		}
	}
}

// unsent ends the waiting for items that could not be sent.
func (c *settleCall) unsent(items []int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range items {
		if c.heard(i) {
			c.fail(i, Unknown, asOperation(c.operation, err))
		}
	}
}

func (c *settleCall) takeUnheard() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	unheard := c.unheard
	c.unheard = nil
	return unheard
}

// takeSilent returns the items that have no answer yet, which is then no longer awaited.
func (c *settleCall) takeSilent() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return nil
	}
	var silent []int
	for i := range c.waiting {
		if c.heard(i) {
			silent = append(silent, i)
		}
	}
	return silent
}

func (c *settleCall) fail(i int, status SettleStatus, err *Error) {
	if err.Operation == "" {
		err = asOperation(c.operation, err)
	}
	c.results[i].Status, c.results[i].Err = status, err
}

// failAll gives the remaining items one error. One that certainly will not happen is "rejected".
func (c *settleCall) failAll(todo []int, err error) {
	e := asOperation(c.operation, err)
	status := Unknown
	if e.Outcome == OutcomeRejected {
		status = Rejected
	}
	for _, i := range todo {
		c.fail(i, status, e)
	}
}
