package natslease

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// MaxReserve is the most tasks that one reserve may ask for.
const MaxReserve = 10_000

// reservation is one call of Reserve among the waiters of a feed. Its fields are guarded by feed.mu.
type reservation struct {
	session  *session
	want     int
	until    time.Time // when its wait for the first task is over
	deadline time.Time
	tries    int // pulls that it was given after its wait, because there was something
	got      []*Lease
	finished bool        // the pull that brought something has ended: it need not wait for more
	over     bool        // its wait is over, and nothing came
	crowded  bool        // others wait for what there is
	lagged   bool        // it has waited longer for the end of its pull
	status   *pullStatus // what the server last answered, when it was neither tasks nor "nothing"
	err      *Error
	alarm    *alarm // of the call that waits
}

// pullUntil is when a pull for this call has to expire: before the call's deadline, so that the server has let go of it
// when the call returns.
func (r *reservation) pullUntil(now time.Time) time.Time {
	left := r.deadline.Sub(now)
	last := r.deadline.Add(-min(left/10, 50*time.Millisecond))
	until := now.Add(shortestPull)
	if r.until.After(until) {
		until = r.until
	}
	if until.After(last) {
		return last
	}
	return until
}

// pullTries is how many pulls a call gets after its wait from a queue that has tasks and gives none: 720 ms in all.
const pullTries = 8

// again gives a call whose wait is over one more pull, each longer than the one before; false when it has had enough.
func (r *reservation) again() bool {
	if r.tries == pullTries {
		return false
	}
	r.tries++
	r.over, r.lagged = false, false
	r.until = time.Now().Add(time.Duration(r.tries) * 20 * time.Millisecond)
	return true
}

// Reserve takes up to n tasks, waiting up to wait for the first; what is there at that moment is returned at once. No
// lease and no error means that the queue was empty, truthfully.
func (q *Queue) Reserve(ctx context.Context, n int, wait time.Duration) ([]*Lease, error) {
	const operation = "reserve"
	ctx, cancel, err := q.client.beginReserve(ctx, n, wait)
	if err != nil {
		return nil, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	ctx, conclude, err := q.client.admit(ctx, operation)
	if err != nil {
		return nil, err
	}
	leases, err := q.feed.reserve(ctx, n, wait)
	if len(leases) > 0 {
		_ = q.feed.inquire(ctx) // the leases are there
		q.own(leases)
	}
	if conclude != nil {
		err = conclude(leases, err)
	}
	if err != nil {
		return nil, inOperation(operation, err, OutcomeUnknown)
	}
	return leases, nil
}

// own makes leases those of this queue, after its feed has inquired.
func (q *Queue) own(leases []*Lease) {
	q.feed.clock(leases)
	for _, l := range leases {
		l.queue = q
		if l.Expires.IsZero() { // the consumer may not be asked about: the queue's option has to do
			l.Expires = expiry(l.received, q.cfg.AckWait)
		}
	}
}

// beginReserve is begin for calls that take tasks, after a look at what they ask for.
func (c *Client) beginReserve(ctx context.Context, n int, wait time.Duration) (context.Context, func(), error) {
	switch {
	case n < 1 || n > MaxReserve:
		return nil, nil, configError("n is %d: it must be from 1 to %d", n, MaxReserve)
	case wait < 0:
		return nil, nil, configError("wait is %s: it must not be negative", wait)
	}
	stop := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, stop = context.WithTimeout(ctx, wait+c.cfg.Timeout)
	}
	if deadline, _ := ctx.Deadline(); wait > 0 && wait >= time.Until(deadline) && ctx.Err() == nil {
		stop()
		return nil, nil, newError(CodeDeadline, OutcomeNotSent, "%s before its deadline the call was to wait for %s: it began late, "+
			"as calls do where the processor is short, or its deadline is too early", time.Until(deadline).Round(time.Millisecond), wait)
	}
	ctx, cancel, err := c.begin(ctx, c.hub.reserving)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return ctx, func() {
		cancel()
		stop()
	}, nil
}

// reserve joins the feed's waiters until they have got what the call wants. Tasks that came too late for their call are
// there without a session.
func (f *feed) reserve(ctx context.Context, n int, wait time.Duration) ([]*Lease, error) {
	until := time.Now().Add(wait)
	if late := f.takeLate(n); late != nil {
		return late, nil
	}
	s, err := f.hub.session(ctx)
	if err != nil {
		return nil, err
	}
	if f.known().learned.IsZero() {
		f.answers.poke() // the lease clock needs the consumer's configuration: it is asked for while the pull is out
	}
	if wait == 0 {
		if known, err := f.recall(ctx, s); known || err != nil {
			return nil, err
		}
	}
	r := &reservation{session: s, want: n, until: until, alarm: newAlarm()}
	r.deadline, _ = ctx.Deadline()
	if err := f.join(r); err != nil {
		return nil, err
	}
	return f.leave(r, f.await(ctx, r))
}

func (f *feed) join(r *reservation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return newError(CodeClientClosed, OutcomeNotSent, "the client was closed")
	}
	if !r.session.alive() { // whoever joins from now on is told of the session's end
		return r.session.lostBefore()
	}
	now := time.Now()
	if f.pull == nil && f.pace.next.After(r.pullUntil(now)) && f.pace.next.After(r.deadline) {
		e := newError(CodeBusy, OutcomeNotSent, "the queue was empty just now, and the deadline comes before it is asked again")
		if f.pace.refused.code != "" {
			e = f.pace.refused.outOfTime()
		}
		e.RetryAfter = spread(f.pace.next.Sub(now))
		return e
	}
	f.used = now
	f.waiters = append(f.waiters, r)
	f.pump()
	return nil
}

// leave takes r out of the waiters, and returns what it got. A call that was cancelled leaves that to the next one.
func (f *feed) leave(r *reservation, err error) ([]*Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(other *reservation) bool { return other == r })
	if len(r.got) > 0 && CodeOf(err) != CodeCanceled {
		return r.got, nil
	}
	for _, l := range r.got {
		if !f.hand(l) {
			f.keepLate(l)
		}
	}
	return nil, err
}

// await returns when r has got something, or it is known that there is nothing (nil, too), or with what went wrong.
func (f *feed) await(ctx context.Context, r *reservation) error {
	timer := lazyTimer{at: latest(r.until, time.Now().Add(shortestPull))}
	defer timer.stop()
	var last pullStatus
	for {
		if !r.alarm.sleep(ctx, timer.at) {
			select {
			case <-r.alarm.rung:
			case <-timer.fires():
				if wait := f.lags(r); wait > 0 {
					timer.reset(time.Now().Add(wait))
					continue
				}
			case <-ctx.Done():
				return overdueReserve(ctx, r.session, last)
			}
		}
		f.mu.Lock()
		done := len(r.got) == r.want || len(r.got) > 0 && r.finished
		status, over, failure := r.status, r.over, r.err
		r.status = nil
		f.mu.Unlock()
		switch {
		case done:
			return nil
		case failure != nil:
			return failure
		case status != nil:
			last = *status
			if err := f.refused(r.session, last); err != nil {
				return err
			}
		case over:
			if known, err := f.nothing(ctx, r); err != nil {
				return err
			} else if known {
				return f.refusal(ctx, r)
			}
			timer.reset(latest(r.until, time.Now().Add(shortestPull)))
		}
	}
}

// refusal returns the server's refusal of the pull of a call that would end as "empty". nats.go passes it on some time
// after it has read it, and what was read next may overtake it.
func (f *feed) refusal(ctx context.Context, r *reservation) error {
	for end := time.Now().Add(pullLag); errors.Is(r.session.nc.LastError(), nats.ErrPermissionViolation); {
		f.mu.Lock()
		silent, failure := f.pull != nil && f.pull.session == r.session, r.err
		f.mu.Unlock()
		if failure != nil {
			return failure
		}
		if !silent || time.Now().After(end) || !sleep(ctx, time.Millisecond) {
			break
		}
	}
	return nil
}

// lazyTimer is a timer that is made when somebody waits for it.
type lazyTimer struct {
	at    time.Time
	timer *time.Timer
}

func (t *lazyTimer) fires() <-chan time.Time {
	if t.timer == nil {
		t.timer = time.NewTimer(time.Until(t.at))
	}
	return t.timer.C
}

func (t *lazyTimer) reset(at time.Time) {
	t.at = at
	if t.timer != nil {
		t.timer.Reset(time.Until(at))
	}
}

func (t *lazyTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pullLag is for how long after its expiry a call waits for the server's word on its pull.
const pullLag = 20 * time.Millisecond

// lags ends the wait of a call whose time is over, unless a pull that ends with it has not been heard of yet, or the queue
// has no leader that could say that there is nothing: then it returns how much longer to wait.
func (f *feed) lags(r *reservation) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pace.refused.leaderless() {
		return pacingInterval
	}
	if f.pull != nil && !r.lagged && f.pull.expires.Before(time.Now().Add(shortestPull)) {
		r.lagged = true
		return pullLag
	}
	r.over = len(r.got) == 0
	return 0
}

// refused tells what the server's refusal of a pull means for the calls that wait; nil means that it is sent again. Where
// the queue may be gone the consumer is asked about, and those who wait are told when it says so.
func (f *feed) refused(s *session, status pullStatus) error {
	switch {
	case status.says("Exceeded MaxWaiting"):
		return nil
	case status.leaderless():
		f.question(s)
		return nil
	}
	return refusedPull(status)
}

// question finds out whether the consumer exists, for the calls that wait now, while pulls go on: a queue that has a
// leader again may give tasks before the question is answered.
func (f *feed) question(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.questioned {
		return // who came since then asks when its next pull is refused
	}
	waiting := slices.Clone(f.waiters)
	f.questioned = f.hub.spawn(f.hub.cfg.Timeout, func(ctx context.Context) {
		err := f.exists(ctx, s)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.questioned = false
		var e *Error
		if !errors.As(err, &e) || e.Outcome != OutcomeRejected {
			return // no answer says nothing of the queue
		}
		for _, r := range waiting {
			if r.err == nil {
				r.err = e
				r.alarm.ring()
			}
		}
	})
}

func refusedPull(status pullStatus) *Error {
	return newError(CodeServer, OutcomeRejected, "the server refused the pull: %s %s", status.code, status.description)
}

func tooManyPulls() *Error {
	e := newError(CodeBusy, OutcomeNotSent, "the consumer already has as many pulls waiting as its max_waiting allows")
	e.RetryAfter = jittered(time.Second)
	return e
}

// overdueReserve is the error of a call whose context ended, after what the server last answered.
func overdueReserve(ctx context.Context, s *session, last pullStatus) *Error {
	if ctx.Err() != context.DeadlineExceeded || last.code == "" {
		return s.overdue(ctx)
	}
	return last.outOfTime()
}

// outOfTime is the error of a call that had this answer until its deadline.
func (p pullStatus) outOfTime() *Error {
	if p.says("Exceeded MaxWaiting") {
		return tooManyPulls()
	}
	return newError(CodeQueueUnavailable, OutcomeNotSent, "the queue had no leader until the deadline (%s)", strings.TrimSpace(p.code+" "+p.description))
}

// exists returns nil when the queue's consumer is there, or cannot be asked about: silence is never "gone".
func (f *feed) exists(ctx context.Context, on *session) error {
	a, err := f.answers.do(ctx, on)
	switch {
	case CodeOf(err) == CodePermissionDenied:
		return nil
	case err != nil:
		return err
	case a.failure != nil:
		return a.failure.asError()
	}
	return nil
}
