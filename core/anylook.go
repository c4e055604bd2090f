package natslease

import (
	"context"
	"slices"
	"time"
)

// look glances at queues; those that somebody else is looking at need it no more.
func (c *anyCall) look(feeds []*feed) error {
	g, err := newGlance(c.session, feeds, c.alarm.ring)
	if g != nil {
		c.glances = append(c.glances, g)
	}
	return err
}

// mayLook tells whether it is time for the next wave of looks.
func (c *anyCall) mayLook(now time.Time) bool {
	if len(c.glances) == 0 {
		return true
	}
	last := c.glances[len(c.glances)-1]
	return last.ebbs() || now.Sub(last.sent) >= anyPause
}

// closeSilent ends the looks whose answers will not come, and returns whether there were any.
func (c *anyCall) closeSilent(now time.Time) bool {
	asked := 0
	for _, g := range c.glances {
		asked += len(g.feeds)
	}
	silent := false
	c.glances = slices.DeleteFunc(c.glances, func(g *glance) bool {
		if !g.silent(now, asked) {
			return g.awaits() == 0
		}
		g.close()
		silent = true
		return true
	})
	return silent
}

// learn asks about some of the consumers of which nothing is known: what is published to their queues is heard from then
// on, and they need no looking at.
func (c *anyCall) learn() {
	if c.learned.Equal(c.seen) {
		return
	}
	c.learned = c.seen
	left := anyLearned
	for _, q := range c.queues {
		if left > 0 && q.failure == nil && q.feed.known().learned.IsZero() {
			q.feed.answers.poke()
			left--
		}
	}
}

// stroll looks at queues on behalf of the next calls, so that none is forgotten while others have enough: at all that
// nobody has looked at yet, and at a few more, half of them such as had tasks lately.
func (c *anyCall) stroll(now time.Time) {
	unseen, few := c.unseen, c.hub.anys.stroll(now)
	c.hub.spawn(glanceLife, func(context.Context) {
		var chosen []*feed
		lately, others := few/2, few-few/2
		for _, f := range unseen {
			turn, known := f.past()
			switch {
			case !known:
			case lately > 0 && turn > 0 && turn+anyLately > c.hub.turns.Load():
				lately--
			case others > 0:
				others--
			default:
				continue
			}
			chosen = append(chosen, f)
		}
		_, _ = newGlance(c.session, chosen, func() {}) // it ends by itself; what keeps it from asking ends the session too
	})
}

// ask asks about consumers that answered strangely, as many as it may at a time.
func (c *anyCall) ask(ctx context.Context, puzzling []*anyQueue) {
	for _, q := range puzzling {
		c.setAsking(q, true)
		started := c.asking.TryGo(func() error {
			c.question(ctx, q.feed)
			c.setAsking(q, false)
			c.alarm.ring()
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
