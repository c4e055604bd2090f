package natslease

import (
	"context"
	"slices"
	"strconv"
	"time"
)

const (
	// MaxReserve is the most tasks that one reserve may ask for.
	MaxReserve = 10_000
	// shortestPull is how long a pull stays with the server at least: one without expiry is never answered when the
	// consumer is at max_ack_pending.
	shortestPull = 5 * time.Millisecond
	// longestPull bounds how long a pull can outlive the call that sent it; longer waits are several pulls.
	longestPull = 5 * time.Second
	// saturationAge is how long "not saturated" is believed before the consumer is asked again.
	saturationAge = 250 * time.Millisecond
)

// reservation is one call of Reserve among the waiters of a feed. Its fields are guarded by feed.mu.
type reservation struct {
	want   int
	got    []*Lease
	pull   *pull       // the newest pull
	status *pullStatus // how the server ended it; nil while it is out
	short  bool        // a pull of this consumer ended: whoever has something need not wait for more
	err    *Error
	wake   chan struct{}
}

func (r *reservation) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Reserve takes up to n tasks, waiting up to wait for the first; what is there at that moment is returned at once. No
// lease and no error means that the queue was empty, truthfully.
func (q *Queue) Reserve(ctx context.Context, n int, wait time.Duration) ([]*Lease, error) {
	const operation = "reserve"
	if n < 1 || n > MaxReserve {
		return nil, inOperation(operation, configError("n is %d: it must be from 1 to %d", n, MaxReserve), OutcomeRejected)
	}
	if wait < 0 {
		return nil, inOperation(operation, configError("wait is %s: it must not be negative", wait), OutcomeRejected)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait+q.client.cfg.Timeout)
		defer cancel()
	}
	if deadline, _ := ctx.Deadline(); wait > 0 && wait >= time.Until(deadline) {
		return nil, inOperation(operation, configError("wait is %s: it must be shorter than the deadline, which is in %s",
			wait, time.Until(deadline).Round(time.Millisecond)), OutcomeRejected)
	}
	ctx, cancel, err := q.client.begin(ctx, q.hub.reserving)
	if err != nil {
		return nil, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	leases := q.feed.takeLate(n)
	if leases == nil {
		leases, err = q.feed.reserve(ctx, n, time.Now().Add(wait))
		if err != nil {
			return nil, inOperation(operation, err, OutcomeUnknown)
		}
	}
	if len(leases) > 0 {
		q.feed.inquire(ctx)
		q.feed.clock(leases)
		for _, l := range leases {
			l.queue = q
			if l.Expires.IsZero() { // the consumer may not be asked about: the queue's option has to do
				l.Expires = l.received.Add(q.cfg.AckWait)
			}
		}
	}
	return leases, nil
}

// reserve joins the feed's waiters until they have got what the call wants.
func (f *feed) reserve(ctx context.Context, n int, until time.Time) ([]*Lease, error) {
	s, err := f.hub.session(ctx)
	if err != nil {
		return nil, err
	}
	if f.known().learned.IsZero() {
		// The lease clock needs the consumer's configuration: it is asked for while the pull is out.
		go f.inquire(ctx)
	}
	r := &reservation{want: n, wake: make(chan struct{}, 1)}
	f.join(r)
	leases, err := f.await(ctx, s, r, until)
	f.leave(r, err)
	if err != nil {
		return nil, err
	}
	return leases, nil
}

func (f *feed) join(r *reservation) {
	f.mu.Lock()
	f.waiters = append(f.waiters, r)
	f.mu.Unlock()
}

// leave takes r out of the waiters. What it got and does not return goes to the next one.
func (f *feed) leave(r *reservation, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(other *reservation) bool { return other == r })
	if r.pull != nil {
		r.pull.owner = nil
		f.dropFilledPulls()
	}
	if err == nil {
		return
	}
	for _, l := range r.got {
		if !f.hand(l) {
			f.keepLate(l)
		}
	}
}

// await sends pulls until there is something, or the queue is known to be empty, or the call's time is over.
func (f *feed) await(ctx context.Context, s *session, r *reservation, until time.Time) ([]*Lease, error) {
	batch := r.want
	var longest time.Duration // set when the consumer allows less than longestPull
	var wait backoff
	for {
		if err := f.ask(ctx, s, r, batch, until, longest); err != nil {
			return nil, err
		}
		got, status, err := f.outcome(ctx, s, r)
		if len(got) > 0 || err != nil {
			return got, err
		}
		pause := time.Duration(0)
		switch {
		case status.is("404") || status.is("408") && status.description != "Requests Pending":
			if time.Until(until) < shortestPull {
				return f.empty(ctx)
			}
		case status.is("408"): // Requests Pending: others wait for what is there; asking again at once would spin
			if pause = wait.delay(); time.Until(until) < pause {
				return f.empty(ctx)
			}
		case status.limit("Exceeded MaxRequestBatch of ") > 0:
			batch = status.limit("Exceeded MaxRequestBatch of ")
		case status.duration("Exceeded MaxRequestExpires of ") > 0:
			longest = status.duration("Exceeded MaxRequestExpires of ")
		case status.says("Exceeded MaxWaiting"):
			if pause = wait.delay(); !f.hasTime(ctx, pause) {
				return nil, &Error{
					Code: CodeBusy, Outcome: OutcomeNotSent, RetryAfter: jittered(time.Second),
					Message: "the consumer already has as many pulls waiting as its max_waiting allows",
				}
			}
		case status.says("Leadership Change"):
			pause = wait.delay()
		case status.says("Server Shutdown"):
			e := newError(CodeConnectionLost, OutcomeUnknown, "%s is shutting down", s.flight.server)
			s.end(e)
			return nil, e
		case status.is("503"), status.says("Consumer Deleted"), status.says("Consumer is push based"):
			if err := f.exists(ctx); err != nil {
				return nil, err
			}
			pause = wait.delay()
		default:
			return nil, newError(CodeServer, OutcomeRejected, "the server refused the pull: %s %s", status.code, status.description)
		}
		if pause > 0 && !sleep(ctx, pause) {
			return nil, newError(CodeQueueUnavailable, OutcomeUnknown, "the queue had no leader until the deadline (%s %s)", status.code, status.description)
		}
	}
}

func (f *feed) hasTime(ctx context.Context, d time.Duration) bool {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline) > d
}

// ask sends the server a pull. The pull expires before the call's deadline, so that the server has let go of it
// when the call returns.
func (f *feed) ask(ctx context.Context, s *session, r *reservation, batch int, until time.Time, longest time.Duration) error {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if left <= 0 {
		return ctx.Err()
	}
	if longest <= 0 || longest > longestPull {
		longest = longestPull
	}
	expires := min(max(time.Until(until), shortestPull), longest, max(left-min(left/10, 50*time.Millisecond), time.Millisecond))
	p := &pull{feed: f, session: s, owner: r, batch: batch, subject: f.hub.cfg.apiPrefix() + "CONSUMER.MSG.NEXT." + f.stream + "." + f.consumer}
	if err := f.open(p); err != nil {
		return err
	}
	request := make([]byte, 0, 64)
	request = append(request, `{"batch":`...)
	request = strconv.AppendInt(request, int64(batch), 10)
	request = append(request, `,"expires":`...)
	request = strconv.AppendInt(request, int64(expires), 10)
	request = append(request, `,"no_wait":true}`...)
	if err := s.publish(p.subject, s.subject(p.id, 0), nil, request); err != nil {
		f.mu.Lock()
		f.closePull(p, p.batch)
		f.mu.Unlock()
		return err
	}
	return nil
}

// outcome waits until the pull that is out has brought all, some, or nothing.
func (f *feed) outcome(ctx context.Context, s *session, r *reservation) ([]*Lease, pullStatus, error) {
	for {
		var ended bool
		select {
		case <-r.wake:
		case <-ctx.Done():
			ended = true
		}
		f.mu.Lock()
		got, status, short, failure := r.got, r.status, r.short, r.err
		if len(got) == r.want || len(got) > 0 && (short || status != nil || failure != nil || ended && ctx.Err() == context.DeadlineExceeded) {
			// Full means that r no longer takes part; a partial result is closed here, under the lock.
			r.want = len(got)
			f.mu.Unlock()
			return got, pullStatus{}, nil
		}
		f.mu.Unlock()
		switch {
		case failure != nil:
			return nil, pullStatus{}, failure
		case ended:
			return nil, pullStatus{}, s.overdue(ctx)
		case status != nil:
			return nil, *status, nil
		}
	}
}

// empty answers "nothing there", after making sure that it is not max_ack_pending that keeps tasks back: the server
// then answers a pull exactly as if the queue were empty.
func (f *feed) empty(ctx context.Context) ([]*Lease, error) {
	f.mu.Lock()
	sure := time.Now().Before(f.unsaturate)
	f.mu.Unlock()
	if sure {
		return nil, nil
	}
	info, failure, err := f.consumerInfo(ctx)
	if CodeOf(err) == CodePermissionDenied {
		return nil, nil // it may not be asked about
	}
	if err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure.asError()
	}
	if limit := f.known().maxAckPending; limit > 0 && info.NumAckPending >= uint64(limit) && info.NumPending > 0 {
		return nil, &Error{
			Code: CodeSaturated, Outcome: OutcomeRejected, RetryAfter: jittered(time.Second),
			Message: "all " + strconv.Itoa(limit) + " leases that max_ack_pending allows are out, and " +
				strconv.FormatUint(info.NumPending, 10) + " tasks wait: settle leases, or raise max_ack_pending",
		}
	}
	f.mu.Lock()
	f.unsaturate = time.Now().Add(saturationAge)
	f.mu.Unlock()
	return nil, nil
}

// exists returns nil when the queue's consumer is there, or cannot be asked about: silence is never "gone".
func (f *feed) exists(ctx context.Context) error {
	_, failure, err := f.consumerInfo(ctx)
	switch {
	case CodeOf(err) == CodePermissionDenied:
		return nil
	case err != nil:
		return err
	case failure != nil:
		return failure.asError()
	}
	return nil
}
