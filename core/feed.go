package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// lateHold is how long a task that nobody waits for stays for the next reserve before it is given back.
const lateHold = 800 * time.Millisecond

// factsAge is how long what is known of a consumer's configuration is trusted.
const factsAge = time.Minute

type feedKey struct{ stream, consumer string }

// feed is where a consumer's deliveries come in. JetStream delivers under the stream's subject, so a delivery cannot be
// told to belong to one call or another; the tasks of one consumer are interchangeable, and go to the calls that wait
// for that consumer, first come first served.
type feed struct {
	hub *hub
	feedKey

	answers rounds[consumerAnswer] // to what the server is asked about the consumer
	vacancy rounds[consumerAnswer] // likewise, with the stream's word on whether it has more

	mu         sync.Mutex
	facts      consumerFacts
	origin     origin
	waiters    []*reservation
	late       []*Lease
	returnLate *time.Timer
	pull       *pull         // the one that is out
	unended    time.Time     // since of a pull before it, of which the server has not told the end; zero for none
	maxBatch   int           // that the consumer allows; 0 while it has refused none
	maxExpires time.Duration // likewise
	ticker     *time.Timer
	used       time.Time // by the last reserve
	pace       pacing
	sight      sight
	questioned bool          // it is being found out whether the consumer exists
	drained    chan struct{} // closed when no pull is out; nil while nobody waits for that
	closed     bool
}

func newFeed(h *hub, key feedKey) *feed {
	f := &feed{hub: h, feedKey: key}
	f.pace.quiet = true
	f.answers.spawn = func(g func(ctx context.Context)) bool { return h.spawn(h.cfg.Timeout, g) }
	f.answers.run = f.ask
	f.answers.overdue = h.overdue
	f.vacancy.spawn, f.vacancy.run, f.vacancy.overdue = f.answers.spawn, f.askForMore, h.overdue
	return f
}

// consumerFacts is what the server has said of the consumer.
type consumerFacts struct {
	learned       time.Time
	ackWait       time.Duration
	maxDeliver    int
	maxAckPending int
	replicated    bool
	subjects      []string // of the messages that it delivers
}

// deliver gives a task to the first call that has room for it, or keeps it for the next.
func (f *feed) deliver(s *session, l *Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stir()
	f.pace.returned = time.Time{}
	p := f.pull
	if p != nil && p.session != s {
		p = nil
	}
	if p != nil && p.since.After(l.received) {
		l.received = p.since // it cannot have come before it was asked for
	}
	if !f.hand(l) {
		f.hub.counter.late.Add(1)
		f.keepLate(l)
	}
	if p == nil {
		return
	}
	p.brought++
	if p.left--; p.left == 0 {
		f.end(p) // the server says nothing more about a pull that is filled
		f.sight.ready = true
		f.pump()
	}
}

// hand gives l to a waiting call; f.mu is held.
func (f *feed) hand(l *Lease) bool {
	for _, r := range f.waiters {
		if len(r.got) < r.want {
			r.got = append(r.got, l)
			if len(r.got) == r.want {
				r.alarm.ring()
			}
			return true
		}
	}
	return false
}

// keepLate holds l for the next reserve; f.mu is held.
func (f *feed) keepLate(l *Lease) {
	f.late = append(f.late, l)
	f.hub.stirred()
	if f.returnLate == nil {
		f.returnLate = time.AfterFunc(lateHold, f.giveBackLate)
	}
}

// giveBackLate returns to the queue what no call came for. It runs on the timer's goroutine.
func (f *feed) giveBackLate() {
	f.mu.Lock()
	late := f.late
	f.late, f.returnLate = nil, nil
	f.mu.Unlock()
	if len(late) == 0 {
		return
	}
	f.hub.spawn(f.hub.cfg.Timeout, func(ctx context.Context) { f.giveBack(ctx, late) })
}

func (f *feed) giveBack(ctx context.Context, leases []*Lease) {
	items := make([]SettleItem, 0, len(leases))
	f.clock(leases)
	for _, l := range leases {
		items = append(items, SettleItem{AckSubject: l.AckSubject, Expires: l.Expires, Lease: l})
	}
	results, err := f.settle(ctx, Settlement{Kind: Release}, items)
	if err != nil {
		f.hub.log.Warn("tasks could not be given back", "stream", f.stream, "tasks", len(items), "error", err)
		return
	}
	for i, r := range results {
		if r.Err != nil {
			f.hub.log.Warn("a task could not be given back: it comes back after ack_wait", "stream", f.stream, "seq", leases[i].Seq, "error", r.Err)
		}
	}
}

// takeLate returns up to n tasks that came after their call had given up and whose time has not run out.
func (f *feed) takeLate(n int) []*Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.late) == 0 {
		return nil
	}
	now := time.Now()
	f.late = slices.DeleteFunc(f.late, func(l *Lease) bool { return f.hasRunOut(l, now) })
	n = min(n, len(f.late))
	taken := slices.Clone(f.late[:n])
	f.late = slices.Delete(f.late, 0, n)
	if len(f.late) == 0 {
		f.stopReturnLate()
	}
	if n == 0 {
		return nil
	}
	return taken
}

// hasRunOut says whether the lease is over. One that was given back has a clock already, and maybe no time of arrival: it
// was another process's, or Python's. f.mu is held.
func (f *feed) hasRunOut(l *Lease, now time.Time) bool {
	if !l.Expires.IsZero() {
		return now.After(l.Expires)
	}
	return f.facts.ackWait > 0 && now.After(l.received.Add(f.facts.ackWait))
}

// stopReturnLate takes back what keepLate has planned; f.mu is held.
func (f *feed) stopReturnLate() {
	if f.returnLate != nil {
		f.returnLate.Stop()
		f.returnLate = nil
	}
}

// isPulledByNobody says whether a pull is out that no call waits for.
func (f *feed) isPulledByNobody() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pull != nil && len(f.waiters) == 0
}

// takeAllLate returns what came for nobody.
func (f *feed) takeAllLate() []*Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	late := f.late
	f.late = nil
	f.stopReturnLate()
	return late
}

// drain prepares the feed for the end of its hub: it lets the pull that is still out expire, because a pull whose
// connection closes under it can lose its tasks until ack_wait, and gives back what has come for nobody.
func (f *feed) drain(ctx context.Context) {
	f.mu.Lock()
	f.closed = true
	if f.ticker != nil {
		f.ticker.Stop()
	}
	drained := make(chan struct{})
	if f.pull == nil {
		close(drained)
	} else {
		f.drained = drained
	}
	f.mu.Unlock()
	deadline, _ := ctx.Deadline()
	patience := time.NewTimer(time.Until(deadline) / 2) // the rest is for giving back
	defer patience.Stop()
	select {
	case <-drained:
	case <-patience.C:
	case <-ctx.Done():
	}
	if late := f.takeAllLate(); len(late) > 0 {
		f.giveBack(ctx, late)
	}
}

// consumerAnswer is the server's answer to a question about a consumer: info, or its refusal.
type consumerAnswer struct {
	info    *consumerInfo
	failure *apiError
	behind  bool // the stream has tasks of which the consumer's leader does not know yet
}

// ask asks about the consumer, and learns its clock from the answer.
func (f *feed) ask(ctx context.Context) (consumerAnswer, error) {
	info := new(consumerInfo)
	failure, err := f.hub.api(ctx, "CONSUMER.INFO."+f.stream+"."+f.consumer, nil, info)
	if err == nil && failure == nil {
		f.learn(ctx, info)
	}
	return consumerAnswer{info: info, failure: failure}, err
}

// askForMore asks about the consumer, and if it has nothing the stream, too: of a replicated queue the two can have
// different leaders, and what the stream's has confirmed the consumer's may not have heard of.
func (f *feed) askForMore(ctx context.Context) (consumerAnswer, error) {
	a, err := f.ask(ctx)
	if err != nil || a.failure != nil || a.info.NumPending > 0 || !a.info.replicated() {
		return a, err
	}
	for _, subject := range f.known().subjects {
		m, err := f.hub.storedOrNil(ctx, f.stream, storedAt{Seq: a.info.Delivered.Stream + 1, NextOn: subject})
		switch {
		case CodeOf(err) == CodePermissionDenied: // nobody can be asked who knows better
			return a, nil
		case err != nil:
			return a, err
		case m != nil:
			a.behind = true
			return a, nil
		}
	}
	return a, nil
}

// learn takes the consumer's clock, limits and subjects from what the server says.
func (f *feed) learn(ctx context.Context, info *consumerInfo) {
	var c consumerConfig
	if json.Unmarshal(info.Config, &c) != nil {
		return
	}
	subjects := subjectsOf(&c, f.known().subjects)
	if len(subjects) == 0 { // it delivers whatever the stream takes
		var stream streamInfo
		var config streamConfig
		if failure, err := f.hub.api(ctx, "STREAM.INFO."+f.stream, nil, &stream); err == nil && failure == nil &&
			json.Unmarshal(stream.Config, &config) == nil {
			subjects = config.Subjects
		}
	}
	f.mu.Lock()
	if f.sight.refusal != nil && f.sight.refusal.Code == CodeQueueNotFound {
		f.sight.refusal = nil
	}
	f.facts = consumerFacts{
		learned: time.Now(), ackWait: c.AckWait, maxDeliver: c.MaxDeliver, maxAckPending: c.MaxAckPending, subjects: subjects,
		replicated: info.replicated(),
	}
	f.mu.Unlock()
}

// known returns the facts, "zero" while there are none.
func (f *feed) known() consumerFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.facts
}

// inquire makes sure that the facts are known and fresh. Unknown ones are waited for; old ones are asked for anew
// while the old serve on. Its error is that the session was lost meanwhile; whatever else goes wrong, the call goes on.
func (f *feed) inquire(ctx context.Context) error {
	facts := f.known()
	if time.Since(facts.learned) < factsAge {
		return nil
	}
	if !facts.learned.IsZero() {
		f.answers.poke()
		return nil
	}
	f.answers.wait(ctx) // what was asked before the tasks came is as good
	if !f.known().learned.IsZero() {
		return nil
	}
	a, err := f.answers.do(ctx, nil)
	if CodeOf(err) == CodeClientClosed { // the last tasks are being given back, on nobody else's behalf
		a, err = f.ask(ctx)
	}
	if err != nil || a.failure != nil {
		f.hub.log.Debug("consumer info failed", "stream", f.stream, "consumer", f.consumer, "error", err)
	}
	if CodeOf(err) != CodeConnectionLost {
		err = nil
	}
	return err
}

// clock sets when leases run out, from their arrival and the consumer's actual ack_wait.
func (f *feed) clock(leases []*Lease) {
	ackWait := f.known().ackWait
	for _, l := range leases {
		if l.Expires.IsZero() && ackWait > 0 {
			l.Expires = expiry(l.received, ackWait)
		}
	}
}

// expiry is when a lease runs out for its holder: early enough that what is sent before then is with the server while the
// lease lasts there.
func expiry(since time.Time, ackWait time.Duration) time.Time {
	return since.Add(ackWait - min(ackWait/20, 100*time.Millisecond))
}
