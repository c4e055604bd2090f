package natslease

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// anyTries is how often a call of ReserveAny pulls, or asks, in vain because of one queue.
	anyTries = 5
	// anyQuestions is how many consumers a call asks about at the same time.
	anyQuestions = 16
	// anyQuestionTime bounds such a question: a queue without a leader must not hold up the others.
	anyQuestionTime = 500 * time.Millisecond
	// anyLearned is how many consumers a call learns to listen to, so that they need not be looked at again and again.
	anyLearned = 16
	// anyStroll is how many queues are looked at on behalf of the next calls when others had enough for this one.
	anyStroll = 16
	// anySpacing is how long a look at one queue of many takes the server at most, in the long run.
	anySpacing = time.Millisecond
)

// anyCall is one call of ReserveAny. It takes from the queues that have tasks, in waves whose batches sum to what is
// missing; looks at those of which nothing is known; and asks about those that answer strangely. Everything that
// happens meanwhile ends in a wake-up, after which it looks at the state of things anew.
type anyCall struct {
	hub      *hub
	session  *session
	queues   []*anyQueue
	want     int
	until    time.Time // when the wait for the first task is over
	deadline time.Time
	interval time.Duration
	seen     time.Time // looks from then on are fresh
	synced   time.Time // what was remembered then had heard all that was published before
	wake     chan struct{}
	taken    []*Lease
	glance   *glance
	asking   errgroup.Group
	mu       sync.Mutex
}

// anyQueue is one queue of the call.
type anyQueue struct {
	*Queue
	r       *reservation // while a pull is out for it
	got     []*Lease
	drained bool // it gave less than it was asked for
	tries   int
	asking  bool   // guarded by anyCall.mu
	failure *Error // what is wrong with it
}

// anyCalls are the calls that want to know when there may be something to take.
type anyCalls struct {
	mu    sync.Mutex
	calls map[*anyCall]struct{}
}

// stirred wakes the calls of ReserveAny.
func (h *hub) stirred() {
	h.anys.mu.Lock()
	defer h.anys.mu.Unlock()
	for c := range h.anys.calls {
		c.signal()
	}
}

func newAnyCall(h *hub, queues []*Queue, want int, started, until time.Time) *anyCall {
	c := &anyCall{
		hub: h, want: want, until: until, seen: started, wake: make(chan struct{}, 1),
		interval: max(pacingInterval, time.Duration(len(queues))*anySpacing),
	}
	states := make([]anyQueue, len(queues))
	for i, q := range queues {
		states[i].Queue = q
		c.queues = append(c.queues, &states[i])
	}
	c.asking.SetLimit(anyQuestions)
	return c
}

func (c *anyCall) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run takes what there is. What it has taken when it ends with an error is kept, unless the caller cancelled.
func (c *anyCall) run(ctx context.Context) error {
	if c.takeLate(); len(c.taken) > 0 {
		return nil
	}
	s, err := c.hub.session(ctx)
	if err != nil {
		return err
	}
	c.session = s
	c.deadline, _ = ctx.Deadline()
	c.hub.anys.mu.Lock()
	if c.hub.anys.calls == nil {
		c.hub.anys.calls = make(map[*anyCall]struct{})
	}
	c.hub.anys.calls[c] = struct{}{}
	c.hub.anys.mu.Unlock()
	questions, cancel := context.WithCancel(ctx)
	err = c.loop(ctx, questions)
	cancel()
	_ = c.asking.Wait() // the answers are in the feeds
	c.hub.anys.mu.Lock()
	delete(c.hub.anys.calls, c)
	c.hub.anys.mu.Unlock()
	for _, q := range c.queues {
		if q.r != nil {
			c.collect(q)
		}
	}
	if CodeOf(err) == CodeCanceled {
		c.giveBack()
	}
	return err
}

func (c *anyCall) loop(ctx, questions context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		v := c.survey(now)
		switch {
		case len(c.taken) == c.want:
			c.stroll(v.unseen)
			return nil
		case v.taking > 0:
		case len(v.unseen) > 0:
			if err := c.look(v.unseen); err != nil {
				return err
			}
			continue
		case v.looking > 0:
			if c.glance != nil && c.glance.silent(now) {
				c.glance.close()
				continue
			}
		case len(c.taken) > 0:
			return nil
		case len(v.unsure) > 0:
			if c.synced.Before(c.seen) {
				if err := c.sync(ctx); err != nil {
					return err
				}
				continue
			}
			if now.After(c.seen.Add(c.session.lag(countLag))) {
				if err := c.look(v.unsure); err != nil {
					return err
				}
				continue
			}
		case len(v.puzzling) > 0:
			c.ask(questions, v.puzzling)
		case v.asked > 0:
		case v.failed == len(c.queues) && !v.passing, v.remembered == 0 && !now.Before(c.until):
			return nil
		case v.remembered > 0 && c.synced.Before(c.seen):
			if err := c.sync(ctx); err != nil {
				return err
			}
			continue
		case !now.Before(c.until):
			return nil
		case now.Sub(c.seen) >= c.interval:
			c.pass(now)
			continue
		}
		timer.Reset(c.next(now, v))
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.session.ended:
			return c.session.cause
		case <-ctx.Done():
			return c.session.overdue(ctx)
		}
	}
}

// sync makes sure that what was published before has been heard, and finds out how slow the server is.
func (c *anyCall) sync(ctx context.Context) error {
	now := time.Now()
	_, err := c.session.syncs.do(ctx, c.session)
	if err == nil {
		c.synced = now
	}
	return err
}

// look glances at queues; those that somebody else is looking at need it no more.
func (c *anyCall) look(feeds []*feed) error {
	g, err := newGlance(c.session, feeds, c.signal)
	if g != nil {
		c.glance = g
	}
	return err
}

// pass begins to look at everything anew: tasks may have come that nobody heard of.
func (c *anyCall) pass(now time.Time) {
	c.seen = now
	for _, q := range c.queues {
		q.tries = 0
	}
}

// next is how long nothing may happen.
func (c *anyCall) next(now time.Time, v view) time.Duration {
	if v.taking > 0 || v.looking > 0 || len(v.unsure) > 0 {
		return shortestPull
	}
	if v.asked > 0 || len(v.puzzling) > 0 {
		return anyQuestionTime
	}
	return max(min(c.until.Sub(now), c.seen.Add(c.interval).Sub(now)), time.Millisecond)
}

// view is the state of things at one moment, by queues.
type view struct {
	unseen     []*feed
	unsure     []*feed // that seem empty
	puzzling   []*anyQueue
	taking     int
	looking    int
	asked      int
	remembered int
	failed     int
	passing    bool // some that failed may serve again soon
}

// survey collects what has come, has the queues with tasks asked for more, and tells what is to be done about the rest.
func (c *anyCall) survey(now time.Time) view {
	var v view
	var ready []*anyQueue
	free := c.want - len(c.taken)
	learned := 0
	for _, q := range c.queues {
		if q.r != nil {
			if !c.settled(q, now) {
				v.taking++
				free -= q.r.want
				continue
			}
			free -= c.collect(q)
		}
		if q.drained {
			continue
		}
		state, failure := q.feed.outlook(c.session, c.seen, c.interval)
		q.failure = failure
		switch state {
		case hasTasks:
			if q.tries < anyTries {
				ready = append(ready, q)
				continue
			}
			q.failure = givesNone()
			v.failed++
			v.passing = true
		case unseen:
			v.unseen = append(v.unseen, q.feed)
			if learned < anyLearned && q.feed.known().learned.IsZero() {
				learned++
				q.feed.answers.poke()
			}
		case looking:
			v.looking++
		case remembered:
			v.remembered++
		case refused:
			v.failed++
			v.passing = v.passing || passing(failure)
		case puzzling:
			c.puzzle(q, &v)
		case seemsEmpty:
			v.unsure = append(v.unsure, q.feed)
		case isEmpty:
		}
	}
	c.take(ready, free, &v)
	return v
}

// puzzle decides whether a queue that answered strangely is to be asked about.
func (c *anyCall) puzzle(q *anyQueue, v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case q.asking:
		v.asked++
	case q.tries < anyTries:
		v.puzzling = append(v.puzzling, q)
	default:
		q.failure = newError(CodeQueueUnavailable, OutcomeNotSent, "the queue has no leader")
		v.failed++
		v.passing = true
	}
}

// take shares what is missing among the queues with tasks. Who was served longest ago is served first.
func (c *anyCall) take(ready []*anyQueue, free int, v *view) {
	if free <= 0 || len(ready) == 0 {
		return
	}
	turns := make(map[*anyQueue]uint64, len(ready))
	for _, q := range ready {
		turns[q] = q.feed.turn()
	}
	slices.SortStableFunc(ready, func(a, b *anyQueue) int { return cmp.Compare(turns[a], turns[b]) })
	for i, q := range ready {
		left := len(ready) - i
		share := min(free, (free+left-1)/left)
		if share == 0 {
			return
		}
		free -= c.pull(q, share)
		switch {
		case q.r != nil:
			v.taking++
		case q.failure != nil:
			v.failed++
			v.passing = true
		}
	}
}
