package natslease

import (
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
		session: c.session, want: share, alarm: c.alarm, deadline: c.deadline,
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
	c.out = append(c.out, q)
	if q.feed.known().learned.IsZero() {
		q.feed.answers.poke() // the lease clock needs the consumer's configuration
	}
	return share
}

// collectSettled takes what the pulls have brought that are over, and returns how many tasks are neither taken nor asked for.
func (c *anyCall) collectSettled(now time.Time) int {
	c.out = slices.DeleteFunc(c.out, func(q *anyQueue) bool {
		settled := c.settled(q, now)
		if settled {
			c.collect(q)
		}
		return settled
	})
	free := c.want - len(c.taken)
	for _, q := range c.out {
		free -= q.r.want
	}
	return free
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

// collect takes what a pull has brought.
func (c *anyCall) collect(q *anyQueue) {
	r, f := q.r, q.feed
	q.r = nil
	leases, _ := f.leave(r, nil)
	c.got(q, leases)
	if len(leases) > 0 {
		q.drained = len(leases) < r.want
		return
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
