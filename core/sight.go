package natslease

import "time"

// sight is what is known of a queue without taking from it. It is guarded by feed.mu.
type sight struct {
	look    look
	asked   *glance    // that is to answer next; nil for none
	before  look       // what was so when it was asked
	ready   bool       // there was a task, and nothing has shown since that there is none
	status  pullStatus // the answer; its code is "" when there was none
	refusal *Error     // what is wrong with the queue, until lapses
	lapses  time.Time
	turn    uint64 // of the last call of ReserveAny that took from it
}

// look is a moment at which a queue was looked at, and what would have told of a change since.
type look struct {
	sent   time.Time // zero: never
	sensor *sensor   // that listened before; nil for none
	news   uint64
}

// reliable tells whether "nothing" was true at that look, and whatever was published since would have been heard; f.mu
// is held.
func (f *feed) reliable(at look) bool {
	return at.sensor != nil && at.sensor == f.pace.sensor && !at.sent.Before(at.sensor.made.Add(at.sensor.session.lag(countLag)))
}

// past tells when ReserveAny last took from the queue, as a number that grows, and whether anybody has ever looked at it.
func (f *feed) past() (turn uint64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sight.turn, !f.sight.before.sent.IsZero()
}

// beginLook has g ask the queue, unless another glance does.
func (f *feed) beginLook(g *glance) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sight.asked != nil {
		return false
	}
	f.used = g.sent
	if f.pace.quiet && f.listen(g.session) && f.pull == nil {
		f.tickIn(feedIdle) // ends the listening when nobody asks any more
	}
	f.sight.asked = g
	f.sight.before = look{g.sent, f.pace.sensor, f.pace.news}
	return true
}

// endLook notes the answer.
func (f *feed) endLook(g *glance, ready bool, status pullStatus, refusal *Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sight.asked != g {
		return
	}
	f.sight.asked = nil
	f.see(f.sight.before, ready, status)
	if refusal != nil {
		f.refuse(refusal)
	}
}

// see notes what was found by a look; f.mu is held.
func (f *feed) see(at look, ready bool, status pullStatus) {
	if !ready && at.news != f.pace.news {
		return // something has changed since, so it says nothing
	}
	f.sight.look, f.sight.ready, f.sight.status, f.sight.refusal = at, ready, status, nil
	if ready {
		f.pace.next = time.Time{}
	}
}

// refuse notes what is wrong with the queue; f.mu is held.
func (f *feed) refuse(err *Error) {
	f.sight.ready, f.sight.refusal = false, err
	f.sight.lapses = time.Now().Add(pacingInterval)
	if !passing(err) {
		f.sight.lapses = time.Now().Add(lastingRefusal)
	}
}

// lastingRefusal is for how long it is believed that a queue does not exist, or may not be taken from.
const lastingRefusal = time.Second

// passing tells whether a queue may serve again soon.
func passing(err *Error) bool { return err.RetryAfter > 0 || err.Code == CodeQueueUnavailable }

// hint notes that there is a task; f.mu is held.
func (f *feed) hint() {
	f.sight.ready, f.sight.refusal = true, nil
	f.hub.stirred()
}

// outlook is what a call that takes from several queues has to do about one of them.
type outlook int

const (
	unseen     outlook = iota // it has to be looked at
	looking                   // somebody is looking
	hasTasks                  // there was a task
	isEmpty                   // there was none since the call began
	seemsEmpty                // likewise, unless the server had not yet counted what was published just before
	remembered                // there was none, and a publish would have been heard
	refused                   // something is wrong with it
	puzzling                  // it gave no answer, or another than expected: the consumer has to be asked about
)

// outlook tells what is known of the queue; what was seen before since counts only if it is remembered for a good reason,
// and is younger than interval.
func (f *feed) outlook(s *session, now, since time.Time, interval time.Duration) (outlook, *Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.sight.look
	fresh := !at.sent.Before(since) && at.news == f.pace.news
	switch {
	case len(f.late) > 0, f.sight.ready:
		return hasTasks, nil
	case f.sight.asked != nil:
		return looking, nil
	case f.remembers(s) && f.pace.verdict == nil:
		return remembered, nil
	case f.sight.refusal != nil && now.Before(f.sight.lapses):
		return refused, f.sight.refusal
	case fresh && f.sight.status.empty():
		if at.sent.Before(since.Add(s.lag(countLag))) && !f.reliable(at) {
			return seemsEmpty, nil
		}
		return isEmpty, nil
	case fresh:
		return puzzling, nil
	case f.reliable(at) && at.sensor.session == s && at.news == f.pace.news && f.sight.status.empty() && now.Sub(at.sent) < interval:
		return remembered, nil
	}
	return unseen, nil
}
