package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// lateHold is how long a task that nobody waits for stays for the next reserve before it is given back.
const lateHold = 800 * time.Millisecond

// factsAge is how long what is known of a consumer's configuration is trusted.
const factsAge = time.Minute

type feedKey struct{ stream, consumer string }

// feed is where a consumer's deliveries come in. JetStream delivers under the stream's subject, so a delivery cannot be
// told to belong to one pull or another; the tasks of one consumer are interchangeable, and go to the calls that wait
// for that consumer, first come first served.
type feed struct {
	hub *hub
	feedKey

	inquiry singleflight.Group

	mu         sync.Mutex
	facts      consumerFacts
	waiters    []*reservation
	late       []*Lease
	returnLate *time.Timer
	pulls      map[*pull]struct{} // those that are out
	credit     int                // tasks that they may still bring
	drained    chan struct{}      // closed when no pull is out; nil while nobody waits for that
	unsaturate time.Time          // until then "empty" needs no further proof
	closed     bool
}

// consumerFacts is what the server has said of the consumer.
type consumerFacts struct {
	learned       time.Time
	ackWait       time.Duration
	maxDeliver    int
	maxAckPending int
}

// deliver gives a task to the first call that has room for it, or keeps it for the next.
func (f *feed) deliver(l *Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.credit--
	f.dropFilledPulls()
	if f.hand(l) {
		return
	}
	f.hub.counter.late.Add(1)
	f.keepLate(l)
}

// hand gives l to a waiting call; f.mu is held.
func (f *feed) hand(l *Lease) bool {
	for _, r := range f.waiters {
		if len(r.got) < r.want {
			r.got = append(r.got, l)
			if len(r.got) == r.want {
				r.signal()
			}
			return true
		}
	}
	return false
}

// keepLate holds l for the next reserve; f.mu is held.
func (f *feed) keepLate(l *Lease) {
	f.late = append(f.late, l)
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
	n = min(n, len(f.late))
	taken := slices.Clone(f.late[:n])
	f.late = slices.Delete(f.late, 0, n)
	if len(f.late) == 0 && f.returnLate != nil {
		f.returnLate.Stop()
		f.returnLate = nil
	}
	return taken
}

// drain prepares the feed for the end of its hub: it lets the pulls that are still out expire, because a pull whose
// connection closes under it can lose its tasks until ack_wait, and gives back what has come for nobody.
func (f *feed) drain(ctx context.Context) {
	f.mu.Lock()
	f.closed = true
	drained := make(chan struct{})
	if len(f.pulls) == 0 {
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
	f.mu.Lock()
	late := f.late
	f.late = nil
	if f.returnLate != nil {
		f.returnLate.Stop()
		f.returnLate = nil
	}
	f.mu.Unlock()
	if len(late) > 0 {
		f.giveBack(ctx, late)
	}
}

// consumerInfo asks about the consumer, and learns its clock from the answer.
func (f *feed) consumerInfo(ctx context.Context) (*consumerInfo, *apiError, error) {
	info := new(consumerInfo)
	failure, err := f.hub.api(ctx, "CONSUMER.INFO."+f.stream+"."+f.consumer, nil, info)
	if err == nil && failure == nil {
		f.learn(info)
	}
	return info, failure, err
}

// learn takes the consumer's clock and limits from what the server says.
func (f *feed) learn(info *consumerInfo) {
	var c consumerConfig
	if json.Unmarshal(info.Config, &c) != nil {
		return
	}
	f.mu.Lock()
	f.facts = consumerFacts{learned: time.Now(), ackWait: c.AckWait, maxDeliver: c.MaxDeliver, maxAckPending: c.MaxAckPending}
	f.mu.Unlock()
}

// known returns the facts, "zero" while there are none.
func (f *feed) known() consumerFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.facts
}

// inquire makes sure that the facts are known and fresh. Unknown ones are waited for; old ones are asked for anew
// while the old serve on.
func (f *feed) inquire(ctx context.Context) {
	facts := f.known()
	if time.Since(facts.learned) < factsAge {
		return
	}
	answer := f.inquiry.DoChan("", func() (any, error) {
		asked := make(chan struct{})
		if !f.hub.spawn(f.hub.cfg.Timeout, func(ctx context.Context) {
			defer close(asked)
			if _, failure, err := f.consumerInfo(ctx); err != nil || failure != nil {
				f.hub.log.Debug("consumer info failed", "stream", f.stream, "consumer", f.consumer, "error", err)
			}
		}) {
			close(asked)
		}
		<-asked
		return nil, nil
	})
	if facts.learned.IsZero() {
		select {
		case <-answer:
		case <-ctx.Done():
		}
	}
}

// clock sets when leases run out, from their arrival and the consumer's actual ack_wait.
func (f *feed) clock(leases []*Lease) {
	ackWait := f.known().ackWait
	for _, l := range leases {
		if l.Expires.IsZero() && ackWait > 0 {
			l.Expires = l.received.Add(ackWait)
		}
	}
}
