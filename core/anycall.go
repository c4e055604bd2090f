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
	// anyLook is how many queues are looked at in one wave. What the first ones have may be enough, and a server that is
	// busy with looks gives tasks late.
	anyLook = 64
	// anyPause is how long a wave waits for answers to the one before: a server may be far away.
	anyPause = 5 * time.Millisecond
	// anyStroll is how many queues are looked at on behalf of the next calls when others had enough for this one.
	anyStroll = 16
	// anyLately is how many pulls ago a queue had tasks lately.
	anyLately = 64
	// anySpacing is how much time there is between looks at queues one by one, in the long run.
	anySpacing = time.Millisecond
)

// anyCall is one call of ReserveAny. It takes from the queues that have tasks, in waves whose batches sum to what is
// missing; looks at those of which nothing is known; and asks about those that answer strangely. Everything that
// happens meanwhile ends in a wake-up, after which it looks at the state of things anew.
type anyCall struct {
	hub        *hub
	session    *session
	all        []anyQueue  // as they were given
	queues     []*anyQueue // likewise, from another one on in each call
	out        []*anyQueue // those that a pull is out for
	want       int
	until      time.Time // when the wait for the first task is over
	deadline   time.Time
	interval   time.Duration
	seen       time.Time // looks from then on are fresh
	learned    time.Time // the seen for which some consumers were asked about
	synced     time.Time // what was remembered then had heard all that was published before
	alarm      *alarm
	taken      []*Lease
	unseen     []*feed // at the last survey
	glances    []*glance
	asking     errgroup.Group
	stopAsking context.CancelFunc // nil when nothing was asked
	mu         sync.Mutex
}

// anyQueue is one queue of the call.
type anyQueue struct {
	*Queue
	r       *reservation // while a pull is out for it
	turn    uint64       // when it was last asked, for this call
	got     []*Lease
	drained bool // it gave less than it was asked for
	tries   int
	asking  bool   // guarded by anyCall.mu
	failure *Error // what is wrong with it
}

// anyCalls are the calls that want to know when there may be something to take.
type anyCalls struct {
	mu       sync.Mutex
	calls    map[*anyCall]struct{}
	next     int // where the next call begins among its queues
	strolled time.Time
}

// begin returns the place of the queue, of so many, that a call looks at first.
func (a *anyCalls) begin(queues int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil { // the first call
		a.calls = make(map[*anyCall]struct{})
		a.next = randomInt(queues) // processes do not begin in step
	}
	return a.next % queues
}

// stroll returns how many queues may be looked at now that have been seen before, for the next calls begin behind them.
func (a *anyCalls) stroll(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := int(min(anyStroll, now.Sub(a.strolled)/anySpacing))
	if n > 0 {
		a.strolled = now
		a.next += n
	}
	return n
}

// stirred wakes the calls of ReserveAny.
func (h *hub) stirred() {
	h.anys.mu.Lock()
	defer h.anys.mu.Unlock()
	for c := range h.anys.calls {
		c.alarm.ring()
	}
}

func newAnyCall(h *hub, queues []*Queue, want int, started, until time.Time) *anyCall {
	c := &anyCall{
		hub: h, want: want, until: until, seen: started, alarm: newAlarm(),
		interval: max(pacingInterval, time.Duration(len(queues))*anySpacing),
	}
	c.all = make([]anyQueue, len(queues))
	c.queues = make([]*anyQueue, len(queues))
	first := h.anys.begin(len(queues))
	for i, q := range queues {
		c.all[i].Queue = q
		c.queues[(i+first)%len(queues)] = &c.all[i]
	}
	c.asking.SetLimit(anyQuestions)
	return c
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
	c.hub.anys.calls[c] = struct{}{}
	c.hub.anys.mu.Unlock()
	if err = c.loop(ctx); len(c.taken) == 0 {
		c.learn()
	}
	if c.stopAsking != nil {
		c.stopAsking()
	}
	_ = c.asking.Wait() // the answers are in the feeds
	c.hub.anys.mu.Lock()
	delete(c.hub.anys.calls, c)
	c.hub.anys.mu.Unlock()
	for _, q := range c.out {
		c.collect(q)
	}
	if CodeOf(err) == CodeCanceled {
		c.giveBack()
	}
	return err
}

func (c *anyCall) loop(ctx context.Context) error {
	var questions context.Context // nil while there are none
	var timer lazyTimer
	defer timer.stop()
	for {
		now := time.Now()
		free := c.collectSettled(now)
		if len(c.taken) == c.want {
			c.stroll(now)
			return nil
		}
		select {
		case <-c.session.ended: // no pull says more than that
			return c.session.cause
		default:
		}
		var v view
		if free > 0 {
			v = c.survey(now, free)
		}
		switch {
		case v.missing > 0 && len(v.unseen) > 0 && c.mayLook(now):
			if err := c.look(v.unseen[:min(anyLook, len(v.unseen))]); err != nil {
				return err
			}
		case len(c.out) > 0:
		case v.looking > 0:
			if c.closeSilent(now) {
				continue
			}
		case len(v.unseen) > 0:
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
			if questions == nil {
				questions, c.stopAsking = context.WithCancel(ctx)
			}
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
		default:
			c.learn()
		}
		timer.reset(now.Add(c.next(now, v)))
		if c.alarm.sleep(ctx, timer.at) {
			continue
		}
		select {
		case <-c.alarm.rung:
		case <-timer.fires():
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

// pass begins to look at everything anew: tasks may have come that nobody heard of.
func (c *anyCall) pass(now time.Time) {
	c.seen = now
	for _, q := range c.queues {
		q.tries = 0
	}
}

// next is how long nothing may happen.
func (c *anyCall) next(now time.Time, v view) time.Duration {
	if v.missing > 0 && len(v.unseen) > 0 {
		return anyPause
	}
	if len(c.out) > 0 || v.looking > 0 || len(v.unsure) > 0 {
		return shortestPull
	}
	if v.asked > 0 || len(v.puzzling) > 0 {
		return anyQuestionTime
	}
	return max(min(c.until.Sub(now), c.seen.Add(c.interval).Sub(now)), time.Millisecond)
}

// view is the state of things at one moment, by queues.
type view struct {
	missing    int // tasks that no queue has been asked for
	unseen     []*feed
	unsure     []*feed // that seem empty
	puzzling   []*anyQueue
	looking    int
	asked      int
	remembered int
	failed     int
	passing    bool // some that failed may serve again soon
}

// survey has the queues with tasks asked for what is missing, and tells what is to be done about the rest.
func (c *anyCall) survey(now time.Time, free int) view {
	var v view
	var ready []*anyQueue
	for _, q := range c.queues {
		if q.r != nil || q.drained {
			continue
		}
		state, failure := q.feed.outlook(c.session, now, c.seen, c.interval)
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
	c.unseen = v.unseen
	v.missing = free
	c.take(ready, &v)
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
func (c *anyCall) take(ready []*anyQueue, v *view) {
	if len(ready) == 0 {
		return
	}
	for _, q := range ready {
		q.turn, _ = q.feed.past()
	}
	slices.SortStableFunc(ready, func(a, b *anyQueue) int { return cmp.Compare(a.turn, b.turn) })
	for i, q := range ready {
		left := len(ready) - i
		share := min(v.missing, (v.missing+left-1)/left)
		if share == 0 {
			return
		}
		v.missing -= c.pull(q, share)
		if q.failure != nil {
			v.failed++
			v.passing = true
		}
	}
}
