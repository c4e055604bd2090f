package natslease

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// pull asks one queue for its share, and returns how much of that is spoken for.
func (c *anyCall) pull(q *anyQueue, share int) int {
	if late := q.feed.takeLate(share); late != nil {
		c.got(q, late)
		return len(late)
	}
	now := time.Now()
	r := &reservation{
		session: c.session, want: share, wake: c.wake, deadline: c.deadline,
		until: now.Add(shortestPull + time.Duration(q.tries)*20*time.Millisecond),
	}
	if err := q.feed.join(r); err != nil { // which tells nothing of the queue, least of all that it is empty
		q.tries++
		q.failure = asOperation("", err)
		return 0
	}
	q.feed.mu.Lock()
	q.feed.sight.turn = c.hub.turns.Add(1)
	q.feed.mu.Unlock()
	q.r = r
	return share
}

// settled tells whether a pull has brought what it will.
func (c *anyCall) settled(q *anyQueue, now time.Time) bool {
	q.feed.mu.Lock()
	defer q.feed.mu.Unlock()
	r, p := q.r, q.feed.pull
	if len(r.got) == r.want || len(r.got) > 0 && r.finished || r.over || r.err != nil || r.status != nil {
		return true
	}
	patience := 2 * pullLag
	if p != nil && p.session == r.session && !p.expires.After(r.until) {
		patience = glanceLife // it is its own pull: the server is slow
	}
	return now.After(r.until.Add(patience))
}

// collect takes what a pull has brought, and returns how much that is.
func (c *anyCall) collect(q *anyQueue) int {
	r, f := q.r, q.feed
	q.r = nil
	leases, _ := f.leave(r, nil)
	c.got(q, leases)
	if len(leases) > 0 {
		q.drained = len(leases) < r.want
		return len(leases)
	}
	q.tries++
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.err != nil && r.err.Code != CodeConnectionLost:
		f.refuse(r.err)
	case r.status != nil:
		f.see(look{sent: time.Now(), news: f.pace.news}, false, *r.status)
	}
	return 0
}

func (c *anyCall) got(q *anyQueue, leases []*Lease) {
	if len(leases) == 0 {
		return
	}
	q.tries = 0
	q.got = append(q.got, leases...)
	c.taken = append(c.taken, leases...)
}

// takeLate takes what came too late for other calls.
func (c *anyCall) takeLate() {
	for _, q := range c.queues {
		if missing := c.want - len(c.taken); missing > 0 {
			c.got(q, q.feed.takeLate(missing))
		}
	}
}

// giveBack leaves what was taken to the next calls.
func (c *anyCall) giveBack() {
	for _, q := range c.queues {
		q.feed.mu.Lock()
		for _, l := range q.got {
			if !q.feed.hand(l) {
				q.feed.keepLate(l)
			}
		}
		q.feed.mu.Unlock()
		q.got = nil
	}
	c.taken = nil
}

// stroll looks at a few queues on behalf of the next calls, so that none is forgotten while others have enough: half of
// them such as had tasks not long ago.
func (c *anyCall) stroll(unseen []*feed) {
	if len(unseen) > anyStroll {
		first := int(c.hub.turns.Add(1) % uint64(len(unseen)))
		unseen = slices.Concat(unseen[first:], unseen[:first])
		turns := make(map[*feed]uint64, len(unseen))
		for _, f := range unseen {
			turns[f] = f.turn()
		}
		head := slices.Clone(unseen)
		slices.SortStableFunc(head, func(a, b *feed) int { return cmp.Compare(turns[b], turns[a]) })
		unseen = append(head[:anyStroll/2], unseen[:anyStroll/2]...) // those that are there twice are asked once
	}
	_, _ = newGlance(c.session, unseen, func() {}) // it ends by itself; what keeps it from asking ends the session too
}

// ask asks about consumers that answered strangely, as many as it may at a time.
func (c *anyCall) ask(ctx context.Context, puzzling []*anyQueue) {
	for _, q := range puzzling {
		c.setAsking(q, true)
		started := c.asking.TryGo(func() error {
			c.question(ctx, q.feed)
			c.setAsking(q, false)
			c.signal()
			return nil
		})
		if !started {
			c.setAsking(q, false)
			return
		}
		q.tries++
	}
}

func (c *anyCall) setAsking(q *anyQueue, asking bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.asking = asking
}

// question finds out what the strange answer of a queue means, and notes that in its sight.
func (c *anyCall) question(ctx context.Context, f *feed) {
	f.mu.Lock()
	status := f.sight.status
	at := look{time.Now(), f.pace.sensor, f.pace.news}
	f.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, anyQuestionTime)
	defer cancel()
	a, err := f.answers.do(limited, c.session)
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.facts.maxAckPending
	switch {
	case CodeOf(err) == CodePermissionDenied: // so nothing else is known than that it gave nothing
		f.see(at, false, pullStatus{code: "404"})
	case ctx.Err() != nil:
	case err != nil:
		cause := inOperation("", err, OutcomeUnknown).(*Error)
		e := newError(CodeQueueUnavailable, OutcomeUnknown, "the queue gave no answer: it may have no leader (%s)", cause.Message)
		e.RetryAfter, e.Cause, e.history = jittered(time.Second), err, cause.history
		f.refuse(e)
	case a.failure != nil:
		f.refuse(a.failure.asError())
	case status.says("Exceeded MaxWaiting"):
		f.refuse(tooManyPulls())
	case status.is("409") && !status.says("Leadership Change"), status.is("400"):
		f.refuse(refusedPull(status))
	case a.info.Paused, a.info.NumPending == 0 && a.info.NumAckPending == 0:
		f.see(at, false, pullStatus{code: "404"})
	case a.info.NumPending == 0: // tasks that were given back may wait, which are not counted: it has to be looked at again
		f.sight.look = look{}
	case limit > 0 && a.info.NumAckPending >= uint64(limit):
		f.refuse(saturated(limit, a.info.NumPending))
	default:
		f.see(at, true, status)
	}
}
