package natslease

import (
	"context"
	"slices"
	"time"
)

// pacingInterval is how often an empty queue costs the server a pull, however many calls ask for it.
const pacingInterval = 250 * time.Millisecond

// pacing keeps the polls of an empty queue from the server. After a pull that brought nothing, "empty" is answered from
// memory until the interval is over, provided that this session would have heard of a task that is published meanwhile:
// because a subscription to the queue's subjects, made before that pull, is still silent, or because another pull is
// out. Its fields are guarded by feed.mu.
type pacing struct {
	quiet   bool       // the last pull brought nothing
	sensor  *sensor    // nil while nothing is listened for
	blind   *session   // the session that may not listen to the subjects, or not ask about the consumer
	news    uint64     // counts what can end an emptiness
	next    time.Time  // no pull is sent before
	until   time.Time  // until then verdict is the answer
	verdict *Error     // nil: empty
	wait    backoff    // between pulls that the server refuses
	refused pullStatus // how it refused the last one

	returned time.Time // when this process last gave a task back
}

// remembers tells whether the answer "nothing" still holds; f.mu is held.
func (f *feed) remembers(s *session) bool {
	return len(f.late) == 0 && f.sensing(s) && time.Now().Before(f.pace.until)
}

// sensing tells whether a task that is published now would be noticed; f.mu is held.
func (f *feed) sensing(s *session) bool {
	return f.pace.sensor != nil && f.pace.sensor.session == s || f.pull != nil && f.pull.session == s
}

// stir ends what is remembered; f.mu is held.
func (f *feed) stir() {
	f.pace.news++
	f.pace.until = time.Time{}
	f.pace.verdict = nil
}

// recall answers from memory, if it can, without a pull. A round trip makes sure that what was published before the
// call has been heard.
func (f *feed) recall(ctx context.Context, s *session) (known bool, err error) {
	f.mu.Lock()
	f.used = time.Now()
	known = f.remembers(s)
	f.mu.Unlock()
	if !known {
		return false, nil
	}
	if _, err := s.syncs.do(ctx, s); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.remembers(s) {
		return false, nil
	}
	return true, f.verdict()
}

// verdict is what is remembered, as a call returns it; f.mu is held.
func (f *feed) verdict() error {
	if f.pace.verdict == nil {
		return nil
	}
	e := *f.pace.verdict
	e.RetryAfter = max(time.Until(f.pace.until), time.Millisecond)
	return &e
}

// nothing makes sure that "empty" is the truth before a call says so. A pull that brought nothing is no proof: when
// max_ack_pending is reached, or the server was too busy to look before the pull expired, it answers the same.
// Neither known nor an error means that there is something, and that the call tries again.
func (f *feed) nothing(ctx context.Context, r *reservation) (known bool, err error) {
	if known, err := f.recall(ctx, r.session); known || err != nil {
		return known, err
	}
	f.mu.Lock()
	news, sensing := f.pace.news, f.sensing(r.session)
	f.mu.Unlock()
	a, err := f.vacancy.do(ctx, r.session)
	if CodeOf(err) == CodePermissionDenied {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pace.blind = r.session
		return true, nil
	}
	if err != nil { // of the question; the pull was sent
		return false, asOperation("", err).maybeSent()
	}
	if a.failure != nil {
		return false, a.failure.asError()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var verdict *Error
	if (a.info.NumPending > 0 || a.behind) && !a.info.Paused {
		limit := f.facts.maxAckPending
		switch {
		case limit > 0 && a.info.NumAckPending >= uint64(limit):
			verdict = saturated(limit, a.info.NumPending)
		case r.again():
			f.pace.next = time.Time{}
			f.pump()
			return false, nil
		case r.crowded: // what there is will be theirs
			return true, nil
		default:
			return true, givesNone()
		}
	}
	// What was given back is not counted as pending.
	if a.info.NumPending == 0 && a.info.NumAckPending > 0 && time.Since(f.pace.returned) < pacingInterval &&
		r.tries < 3 && r.again() {
		f.pace.next = time.Time{}
		f.pump()
		return false, nil
	}
	if sensing && f.pace.news == news && !f.doubtful() {
		f.pace.verdict = verdict
		f.pace.until = f.pace.next
		if now := time.Now(); !f.pace.until.After(now) {
			f.pace.until = now.Add(pacingInterval)
		}
	}
	if verdict != nil {
		return true, verdict
	}
	return true, nil
}

// doubtful tells whether something may be on its way that the server does not count yet, and that nobody will tell of any
// more: it was published before the sensor was made; f.mu is held.
func (f *feed) doubtful() bool {
	n := f.pace.sensor
	if n == nil {
		return false
	}
	lag := n.session.lag(countLag)
	if f.facts.replicated {
		lag = max(lag, commitLag)
	}
	return time.Since(n.made) < lag
}

func givesNone() *Error {
	e := newError(CodeQueueUnavailable, OutcomeNotSent, "the queue has tasks, and the server gave none")
	e.RetryAfter = jittered(time.Second)
	return e
}

func saturated(limit int, waiting uint64) *Error {
	e := newError(CodeSaturated, OutcomeRejected, "all %d leases that max_ack_pending allows are out, and %d tasks wait: "+
		"settle leases, or raise max_ack_pending", limit, waiting)
	e.RetryAfter = jittered(time.Second)
	return e
}

// rest decides when the next pull may be sent, after one that brought nothing; f.mu is held.
func (f *feed) rest(p *pull) {
	f.pace.quiet = true
	listening := p.listened && f.pace.sensor != nil && f.pace.sensor.session == p.session
	if !listening {
		f.stir()
	}
	if listening || f.pace.blind == p.session {
		f.pace.next = p.sent.Add(pacingInterval)
	} else {
		f.pace.next = time.Time{}
	}
}

// settled takes note that tasks of this consumer were settled by this process.
func (f *feed) settled(s Settlement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := s.Kind
	if (kind == Nak || kind == Release) && s.Delay == 0 {
		f.pace.returned = time.Now()
	}
	if kind == Nak || kind == Release || f.pace.verdict != nil || f.sight.refusal != nil {
		f.stir()
		f.sight.refusal = nil
		f.pace.next = time.Time{}
		f.pump()
		f.hub.stirred()
	}
}

// RetryAfter is when to ask again after Reserve found nothing: asking earlier costs time and finds out nothing new. 0
// means now.
func (q *Queue) RetryAfter() time.Duration {
	f := q.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.late) > 0 {
		return 0
	}
	latest := f.pace.until
	if f.pace.next.After(latest) {
		latest = f.pace.next
	}
	if wait := time.Until(latest); wait > 0 {
		return wait
	}
	if f.pace.quiet {
		return pacingInterval
	}
	return 0
}

// listen subscribes to the queue's subjects before a pull; f.mu is held. It returns whether a publish will be heard.
func (f *feed) listen(s *session) bool {
	if f.pace.sensor != nil && f.pace.sensor.session == s {
		return true
	}
	if f.pace.blind == s || f.facts.learned.IsZero() {
		return false
	}
	if len(f.facts.subjects) == 0 {
		f.pace.blind = s
		return false
	}
	f.pace.sensor = newSensor(s, f, f.facts.subjects)
	return f.pace.sensor != nil
}

// heard tells that something was published to a subject that was listened to.
func (f *feed) heard(n *sensor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.end()
	if f.pace.sensor != n {
		return
	}
	f.pace.sensor = nil
	f.stir()
	f.hint()
	f.pace.next = time.Time{}
	f.pump()
}

// blinded tells that the session may not subscribe to the subjects.
func (f *feed) blinded(n *sensor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.end()
	f.pace.blind = n.session
	if f.pace.sensor == n {
		f.pace.sensor = nil
	}
	f.stir()
}

// subjectsOf are the subjects whose messages a consumer delivers.
func subjectsOf(c *consumerConfig, ofStream []string) []string {
	switch {
	case c.FilterSubject != "":
		return []string{c.FilterSubject}
	case len(c.FilterSubjects) > 0:
		return c.FilterSubjects
	}
	return slices.Clone(ofStream)
}
