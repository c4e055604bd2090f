package natslease

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// publishWindow is how many messages of one call are in flight. The server drops what exceeds its own queue of 10,000
// messages a stream.
const publishWindow = 4096

// publishRefill is how far the window must have emptied before it is filled again: what is sent in one go costs less.
const publishRefill = publishWindow * 3 / 4

// publishSilence is how long a server may answer none of a round's messages before they are sent again: those that a
// stream's leader has taken just before it stepped down are never answered.
const publishSilence = 2 * time.Second

// publishLooks is how often that is looked for in this time.
const publishLooks = 4

// publishRound sends messages of a call on one session and collects the answers. Each message is launched once and
// lands once, whoever is first: an answer, a refusal, or the end of the session or of the call.
type publishRound struct {
	call     *publishCall
	session  *session
	todo     []int
	room     chan struct{} // has a value when the window has emptied to publishRefill
	finished chan struct{} // closed when nothing is awaited any more

	mu     sync.Mutex
	flying []bool // by message
	inAir  int    // how many of them are true
	left   int    // messages that have not landed
	dead   *Error // why the round ended before all had
	retry  bool   // and whether what it leaves is to be sent again
	timer  *time.Timer
	looked int // what was left when something had last been answered
	silent int // looks since then

	// Of use when the round is over.
	again   []int // to be sent again
	unheard bool  // nobody listened
	pause   bool  // sending again at once would be useless
}

func (c *publishCall) newRound(s *session, todo []int) *publishRound {
	return &publishRound{
		call: c, session: s, todo: todo, left: len(todo), flying: make([]bool, len(c.messages)),
		room: make(chan struct{}, 1), finished: make(chan struct{}),
	}
}

// run sends what is to be sent, never more than the window ahead of the answers, and waits for them.
func (r *publishRound) run(ctx context.Context) {
	id, err := r.session.register(r)
	if err != nil {
		e := asOperation("", err)
		r.ground(r.todo, e, e.Code == CodeConnectionLost)
		return
	}
	defer r.session.unregister(id)
	r.watch()
	defer r.timer.Stop()
	r.send(ctx, id)
	select {
	case <-r.finished:
	case <-ctx.Done():
		r.end(r.session.overdue(ctx), false)
	}
}

// watch looks from time to time whether the server still answers, until the round is over.
func (r *publishRound) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = r.left
	r.timer = time.AfterFunc(publishSilence/publishLooks, r.look)
}

// look ends the round when nothing was answered for publishSilence, although the server has been sent everything.
func (r *publishRound) look() {
	r.mu.Lock()
	if r.dead != nil || r.left == 0 {
		r.mu.Unlock()
		return
	}
	if r.silent++; r.looked != r.left || r.inAir == 0 || r.session.wire.holds() {
		r.silent, r.looked = 0, r.left
	}
	silent := r.silent == publishLooks
	if !silent {
		r.timer.Reset(publishSilence / publishLooks)
	}
	r.mu.Unlock()
	if silent {
		r.end(newError(CodeQueueUnavailable, OutcomeUnknown, "the server is there, but the stream has not answered for %s", publishSilence), true)
	}
}

// send sends what is to be sent, unless the round has to stop.
func (r *publishRound) send(ctx context.Context, id uint64) {
	r.session.wire.cork()
	defer r.session.wire.uncork()
	for k, i := range r.todo {
		if !r.launch(ctx, i) {
			if ctx.Err() != nil {
				r.end(r.session.overdue(ctx), false)
			} // else it has been ended
			r.ground(r.todo[k:], r.dead, r.retry)
			return
		}
		m := &r.call.messages[i]
		err := r.session.publish(m.subject, r.session.subject(id, i), m.header, m.data)
		if err == nil {
			continue
		}
		e := asOperation("", err)
		r.land(i, landing{PublishResult: PublishResult{Err: e}, again: e.Code == CodeConnectionLost})
		if e.Code == CodeConnectionLost {
			r.ground(r.todo[k+1:], e, true)
			return
		}
	}
}

// launch waits until message i fits into the call's window and the session's budget; false when the round has to stop.
func (r *publishRound) launch(ctx context.Context, i int) bool {
	budget, cost := r.session.budget, r.cost(i)
	if !budget.TryAcquire(cost) {
		r.session.wire.uncork()
		err := budget.Acquire(ctx, cost)
		r.session.wire.cork()
		if err != nil {
			return false
		}
	}
	for {
		launched, dead := r.takeOff(i)
		if launched {
			return true
		}
		if dead || !r.awaitRoom(ctx) {
			budget.Release(cost)
			return false
		}
	}
}

// takeOff puts message i into the air if there is room.
func (r *publishRound) takeOff(i int) (launched, dead bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil || r.inAir >= publishWindow {
		return false, r.dead != nil
	}
	r.flying[i] = true
	r.inAir++
	return true, false
}

// awaitRoom waits until there is some in the window; false when the round has to stop.
func (r *publishRound) awaitRoom(ctx context.Context) bool {
	r.session.wire.uncork()
	defer r.session.wire.cork()
	select {
	case <-r.room:
		return true
	case <-r.finished: // the session was lost
	case <-ctx.Done():
	}
	return false
}

// cost is what message i takes of the session's budget; one that is larger than all of it takes all.
func (r *publishRound) cost(i int) int64 {
	return min(int64(len(r.call.messages[i].data))+512, unsentBudget)
}

// landing is how the flight of a message ended.
type landing struct {
	PublishResult
	certain bool // it is the stream that refuses it
	unheard bool // nobody listened
	again   bool // it is to be sent again
}

// land ends the flight of one message.
func (r *publishRound) land(i int, l landing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.flying[i] {
		return
	}
	if l.Err == nil {
		r.call.results[i] = l.PublishResult
	} else {
		r.call.record(i, l.Err, l.certain)
	}
	if l.again {
		r.again = append(r.again, i)
		r.pause = true
		r.unheard = r.unheard || l.unheard
	}
	r.touchDown(i)
	if r.inAir == publishRefill {
		select {
		case r.room <- struct{}{}:
		default:
		}
	}
	r.over(1)
}

// touchDown takes message i out of the air; r.mu is held.
func (r *publishRound) touchDown(i int) {
	r.flying[i] = false
	r.inAir--
	r.session.budget.Release(r.cost(i))
}

// over counts messages that are no longer awaited; r.mu is held.
func (r *publishRound) over(n int) {
	r.left -= n
	if n > 0 && r.left == 0 && r.dead == nil { // once: "none" comes after the last, too
		close(r.finished)
	}
}

// ground ends the round for messages that were not launched: they were not sent, whatever became of the others.
func (r *publishRound) ground(unsent []int, cause *Error, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := cause.unsent()
	r.call.fail(unsent, e, false)
	if again {
		r.again = append(r.again, unsent...)
		r.pause = true
	}
	r.over(len(unsent))
}

// end ends the round for what is in the air, which may be sent again in the next.
func (r *publishRound) end(cause *Error, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil || r.left == 0 {
		return
	}
	r.dead, r.retry = cause, again
	for _, i := range r.todo {
		if !r.flying[i] {
			continue
		}
		r.call.record(i, cause, false)
		if again {
			r.again = append(r.again, i)
		}
		r.touchDown(i)
	}
	close(r.finished)
}

func (r *publishRound) lost(err *Error) { r.end(err, err.Code == CodeConnectionLost) }

func (r *publishRound) denied(subject string, err *Error) bool {
	var matched []int
	r.mu.Lock()
	for _, i := range r.todo {
		if r.flying[i] && r.call.messages[i].subject == subject {
			matched = append(matched, i)
		}
	}
	r.mu.Unlock()
	for _, i := range matched {
		r.land(i, landing{PublishResult: PublishResult{Err: err}})
	}
	return len(matched) > 0
}

func (r *publishRound) reply(i int, m *nats.Msg) {
	if i < 0 || i >= len(r.flying) {
		return
	}
	if isNoResponders(m) {
		err := newError(CodeQueueUnavailable, OutcomeNotSent, "nobody took the message: the queue has no leader")
		r.land(i, landing{PublishResult: PublishResult{Err: err}, again: true, unheard: true})
		return
	}
	result, again := readPubAck(m.Data)
	r.land(i, landing{PublishResult: result, certain: !again, again: again})
}
