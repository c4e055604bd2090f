package natslease

import (
	"context"
	"sync"
	"time"
)

// keeper extends leases while their holder is busy, from the core's own goroutine: Python may hold its interpreter
// lock for minutes.
type keeper struct {
	hub *hub

	mu      sync.Mutex
	kept    map[string]*keptLease // by ack subject
	running bool
	changed chan struct{}
	stopped bool
}

type keptLease struct {
	feed    *feed
	expires time.Time // at the latest, while it is not certain
	certain bool
	due     time.Time // for the next extension
	until   time.Time
	ackWait time.Duration

	heartbeat time.Duration // how long after beaten it is still extended; 0: whether it is beaten or not
	beaten    time.Time     // when its holder last said that it is at work
}

// extendSpacing is how long the keeper waits at least before it repeats an extension that has not been confirmed.
const extendSpacing = 100 * time.Millisecond

// Keep extends the lease with this ack subject until it is settled, forgotten (Unkeep), or maxHold is over. An ack
// subject does not tell when the lease runs out, so it is extended at once; see KeepItem.
func (q *Queue) Keep(ackSubject string, maxHold time.Duration) error {
	return q.KeepItem(SettleItem{AckSubject: ackSubject}, maxHold)
}

// KeepItem is Keep for a lease of which Expires may be known: then it is first extended when that comes near.
func (q *Queue) KeepItem(item SettleItem, maxHold time.Duration) error {
	return q.KeepBeating(item, maxHold, 0)
}

// KeepBeating is KeepItem while its holder is alive: the lease is not extended any more when Beat has not been called for
// heartbeat. 0 means that it need not be.
func (q *Queue) KeepBeating(item SettleItem, maxHold, heartbeat time.Duration) error {
	ack, err := ParseAckSubject(item.AckSubject)
	if err == nil && (ack.Stream != q.cfg.Stream || ack.Consumer != q.cfg.Consumer) {
		err = newError(CodeInvalidLease, OutcomeRejected, "it is a lease of another queue")
	}
	switch {
	case err != nil:
	case maxHold <= 0:
		err = configError("max hold is %s: it must be positive", maxHold)
	case heartbeat < 0:
		err = configError("heartbeat is %s: it must not be negative", heartbeat)
	}
	if err != nil {
		return inOperation("keep", err, OutcomeRejected)
	}
	ackWait := q.feed.known().ackWait
	if ackWait <= 0 {
		ackWait = q.cfg.AckWait
	}
	now := time.Now()
	l := &keptLease{feed: q.feed, expires: now.Add(ackWait), due: now, until: now.Add(maxHold), ackWait: ackWait, heartbeat: heartbeat, beaten: now}
	if !item.Expires.IsZero() {
		l.renew(item.Expires)
	}
	q.hub.keeper.add(item.AckSubject, l)
	return nil
}

// Beat says that whoever has the leases with these ack subjects is at work; with none, all kept leases of the queue.
func (q *Queue) Beat(ackSubjects ...string) { q.hub.keeper.beat(q.feed, ackSubjects) }

func (k *keeper) beat(f *feed, ackSubjects []string) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(ackSubjects) == 0 {
		for _, l := range k.kept {
			if l.feed == f {
				l.beaten = now
			}
		}
	}
	for _, subject := range ackSubjects {
		if l := k.kept[subject]; l != nil && l.feed == f {
			l.beaten = now
		}
	}
}

// Unkeep lets the lease run out as it would have.
func (q *Queue) Unkeep(ackSubject string) {
	q.hub.keeper.forget([]SettleItem{{AckSubject: ackSubject}})
}

// KeptUntil is when a kept lease runs out if it is not extended again; zero for one that is not kept, and while that is
// not certain.
func (q *Queue) KeptUntil(ackSubject string) time.Time { return q.hub.keeper.keptUntil(ackSubject) }

func (k *keeper) keptUntil(ackSubject string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.kept[ackSubject]; l != nil && l.certain {
		return l.expires
	}
	return time.Time{}
}

// renew notes when the lease runs out, and plans its extension with two more chances before that.
func (l *keptLease) renew(expires time.Time) {
	l.expires, l.certain = expires, true
	l.due = expires.Add(-l.ackWait * 2 / 3)
}

func (k *keeper) add(ackSubject string, l *keptLease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	if k.kept == nil {
		k.kept = make(map[string]*keptLease)
		k.changed = make(chan struct{}, 1)
	}
	k.kept[ackSubject] = l
	if k.running {
		k.nudge()
		return
	}
	k.running = true
	k.hub.workers.Add(1)
	go k.run()
}

func (k *keeper) nudge() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

func (k *keeper) forget(items []SettleItem) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.kept) == 0 {
		return
	}
	for i := range items {
		delete(k.kept, items[i].AckSubject)
	}
	if len(k.kept) == 0 {
		k.nudge()
	}
}

func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	clear(k.kept)
	if k.running {
		k.nudge()
	}
}

func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept)
}

// run extends what is due until nothing is kept any more.
func (k *keeper) run() {
	defer k.hub.workers.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.changed:
		}
		due, next, more := k.take(time.Now())
		if !more {
			return
		}
		for f, items := range due {
			// Each for itself: a queue without a leader must not cost the others their leases.
			k.hub.spawn(k.hub.cfg.Timeout, func(ctx context.Context) { k.extend(ctx, f, items) })
		}
		timer.Reset(max(time.Until(next), 10*time.Millisecond))
	}
}

// take returns what is to be extended now and when to look again; false ends the goroutine.
func (k *keeper) take(now time.Time) (map[*feed][]SettleItem, time.Time, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	due := make(map[*feed][]SettleItem)
	next := now.Add(time.Hour)
	for subject, l := range k.kept {
		if now.After(l.until) || now.After(l.expires) {
			delete(k.kept, subject)
			continue
		}
		if l.heartbeat > 0 && now.After(l.beaten.Add(l.heartbeat)) {
			delete(k.kept, subject)
			k.hub.log.Warn("a kept lease is extended no more: its holder gives no sign of life", "stream", l.feed.stream,
				"heartbeat", l.heartbeat, "silent", now.Sub(l.beaten))
			continue
		}
		if !now.Before(l.due) {
			item := SettleItem{AckSubject: subject}
			if l.certain {
				item.Expires = l.expires
			}
			due[l.feed] = append(due[l.feed], item)
			l.due = now.Add(max(l.expires.Sub(now)/2, extendSpacing)) // in case this try fails
		}
		if l.due.Before(next) {
			next = l.due
		}
	}
	if len(k.kept) == 0 {
		k.running = false
		return nil, next, false
	}
	return due, next, true
}

func (k *keeper) extend(ctx context.Context, f *feed, items []SettleItem) {
	began := time.Now()
	results, err := f.settle(ctx, Settlement{Kind: Extend}, items)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, r := range results {
		l := k.kept[items[i].AckSubject]
		if l == nil {
			continue
		}
		switch r.Status {
		case Settled:
			if r.Expires.IsZero() { // the consumer may not be asked about
				r.Expires = expiry(began, l.ackWait)
			}
			l.renew(r.Expires)
		case Gone, Invalid, Rejected, Expired:
			delete(k.kept, items[i].AckSubject)
			k.hub.log.Warn("a kept lease cannot be extended", "stream", f.stream, "status", r.Status, "error", r.Err)
		case Unknown: // tried again while its time lasts
		}
	}
	if k.running {
		k.nudge() // the next extension may be due earlier than the repetition of this one
	}
}
