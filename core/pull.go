package natslease

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// shortestPull is how long a pull stays with the server at least: one without expiry is never answered when the
	// consumer is at max_ack_pending.
	shortestPull = 5 * time.Millisecond
	// longestPull bounds how long a pull can outlive the calls that it was sent for; longer waits are several pulls.
	longestPull = 2 * time.Second
	// feedIdle is how long what is known of a queue outlives its last use.
	feedIdle = time.Minute
	// pullGrace is how long after its expiry a pull's status is still expected.
	pullGrace = time.Second
)

// pull is one request for tasks that the server holds until it is filled, ended by a status, or expired. A consumer has
// one at a time, on behalf of all calls that wait; it may outlive them, because closing the connection under a pull can
// cost its tasks an ack_wait. Its fields are guarded by feed.mu.
type pull struct {
	feed     *feed
	session  *session
	id       uint64
	subject  string
	sent     time.Time
	since    time.Time // what comes while it is out was asked for then at the earliest
	expires  time.Time
	left     int  // tasks that it may still bring
	brought  int  // tasks that it has brought
	listened bool // the queue's subjects were listened to before it was sent
}

// pump sends the next pull, when calls wait, none is out, and it is time; f.mu is held.
func (f *feed) pump() {
	if f.pull != nil || f.closed {
		return
	}
	now := time.Now()
	var s *session
	batch := 0
	var until time.Time
	for _, r := range f.waiters {
		if r.over || r.finished || r.err != nil || len(r.got) == r.want || s != nil && r.session != s {
			continue
		}
		s = r.session
		batch += r.want - len(r.got)
		if u := r.pullUntil(now); u.After(until) {
			until = u
		}
	}
	if batch == 0 {
		return
	}
	if wait := f.pace.next.Sub(now); wait > 0 {
		f.tickIn(wait)
		return
	}
	batch = min(batch, MaxReserve)
	if f.maxBatch > 0 {
		batch = min(batch, f.maxBatch)
	}
	expires := max(until.Sub(now), time.Millisecond)
	if f.maxExpires > 0 {
		expires = min(expires, f.maxExpires)
	}
	f.sendPull(s, now, batch, min(expires, longestPull))
}

// sendPull needs f.mu.
func (f *feed) sendPull(s *session, now time.Time, batch int, expires time.Duration) {
	p := &pull{
		feed: f, session: s, subject: f.next(),
		sent: now, since: now, expires: now.Add(expires), left: batch,
	}
	if !f.unended.IsZero() {
		p.since = f.unended
	}
	if f.pace.quiet && expires < pacingInterval {
		p.listened = f.listen(s)
	}
	request := make([]byte, 0, 64)
	request = append(request, `{"batch":`...)
	request = strconv.AppendInt(request, int64(batch), 10)
	request = append(request, `,"expires":`...)
	request = strconv.AppendInt(request, int64(expires), 10)
	request = append(request, `,"no_wait":true}`...)
	id, err := s.register(p)
	if err == nil {
		p.id = id
		if err = s.publish(p.subject, s.subject(id, 0), nil, request); err != nil {
			s.unregister(id)
		}
	}
	if err != nil {
		f.fail(s, asOperation("", err))
		return
	}
	f.pull = p
	f.tickIn(expires + pullGrace)
}

// next is the subject to which pulls are sent.
func (f *feed) next() string {
	return f.hub.cfg.apiPrefix() + "CONSUMER.MSG.NEXT." + f.stream + "." + f.consumer
}

// tickIn has tick run in a while; f.mu is held.
func (f *feed) tickIn(d time.Duration) {
	if f.ticker == nil {
		f.ticker = time.AfterFunc(d, f.tick)
		return
	}
	f.ticker.Reset(d)
}

// tick sends what was to be sent later, and gives up what is over: a pull whose end the server did not tell, and
// listening for a queue that nobody asks for. The timer holds on to the feed until then, and so to what it knows.
func (f *feed) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	now := time.Now()
	if p := f.pull; p != nil {
		if left := p.expires.Add(pullGrace).Sub(now); left > 0 {
			f.tickIn(left)
			return
		}
		f.end(p)
		f.unended = p.since // its tasks may still come: the process may have stood still
	}
	if len(f.waiters) > 0 {
		f.tickIn(pacingInterval)
		f.pump()
		return
	}
	if left := f.used.Add(feedIdle).Sub(now); left > 0 {
		f.tickIn(left)
		return
	}
	if f.pace.sensor != nil {
		f.pace.sensor.end()
		f.pace.sensor = nil
		f.stir()
	}
}

// end forgets a pull that will bring no more, and finishes the calls that it brought something; f.mu is held.
func (f *feed) end(p *pull) {
	f.pull, f.unended = nil, time.Time{}
	p.session.unregister(p.id)
	for _, r := range f.waiters {
		if len(r.got) > 0 {
			r.finished = true
			r.alarm.ring()
		}
	}
	if p.brought > 0 {
		f.pace.quiet = false
		f.pace.next = time.Time{}
		f.pace.wait, f.pace.refused = backoff{}, pullStatus{}
	}
	if f.drained != nil {
		close(f.drained)
		f.drained = nil
	}
}

// reply is the status with which the server ends the pull.
func (p *pull) reply(_ int, m *nats.Msg) {
	f := p.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pull != p {
		return
	}
	f.end(p)
	status := pullStatus{code: m.Header.Get("Status"), description: m.Header.Get("Description")}
	switch {
	case status.empty():
		// That there is nothing is not said by it: it may be max_ack_pending, or that the server was too busy to look.
		f.sight.ready, f.sight.look = false, look{}
		if p.brought == 0 {
			f.rest(p)
			f.pace.wait, f.pace.refused = backoff{}, pullStatus{}
		}
		f.overdue(p.session)
	case status.says("Requests Pending"): // others wait for what is there: asking again at once would spin
		f.pace.next = time.Now().Add(f.pace.wait.delay())
		for _, r := range f.waiters {
			r.crowded = true
		}
		f.overdue(p.session)
	case status.limit("Exceeded MaxRequestBatch of ") > 0:
		f.maxBatch = status.limit("Exceeded MaxRequestBatch of ")
	case status.duration("Exceeded MaxRequestExpires of ") > 0:
		f.maxExpires = status.duration("Exceeded MaxRequestExpires of ")
	case status.says("Server Shutdown"):
		go p.session.end(newError(CodeConnectionLost, OutcomeUnknown, "%s is shutting down", p.session.flight.server))
		return
	default:
		f.pace.refused = status
		f.pace.next = time.Now().Add(min(f.pace.wait.delay(), pacingInterval))
		for _, r := range f.waiters {
			if r.session == p.session && len(r.got) == 0 {
				r.status = &status
				r.alarm.ring()
			}
		}
	}
	f.pump()
}

// overdue tells the calls whose wait is over that there is nothing; f.mu is held.
func (f *feed) overdue(s *session) {
	soon := time.Now().Add(shortestPull)
	for _, r := range f.waiters {
		if r.session == s && len(r.got) == 0 && !r.until.After(soon) {
			r.over = true
			r.alarm.ring()
		}
	}
}

// fail ends the calls that wait on a session; f.mu is held.
func (f *feed) fail(s *session, err *Error) {
	for _, r := range f.waiters {
		if r.session == s && r.err == nil {
			r.err = err
			r.alarm.ring()
		}
	}
}

func (p *pull) denied(subject string, err *Error) bool {
	if subject != p.subject {
		return false
	}
	f := p.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pull == p {
		f.end(p)
		f.fail(p.session, err)
	}
	return true
}

// lost has nothing to do: see feed.sessionGone.
func (p *pull) lost(*Error) {}

// sessionGone fails the calls that wait on a session that has ended, after its last arrival.
func (f *feed) sessionGone(s *session, cause *Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pull != nil && f.pull.session == s {
		f.end(f.pull)
	}
	if f.pace.sensor != nil && f.pace.sensor.session == s {
		f.pace.sensor = nil
	}
	f.stir()
	f.pace.next, f.pace.refused = time.Time{}, pullStatus{}
	f.fail(s, cause)
	f.pump() // for calls on the next session
}

// pullStatus is how the server ended a pull.
type pullStatus struct {
	code        string
	description string
}

// empty tells whether the pull ended because there was nothing more.
func (p pullStatus) empty() bool {
	return p.is("404") || p.is("408") && p.description != "Requests Pending"
}

// leaderless tells whether nobody is there who could give tasks: because the queue has no leader at the moment, or is gone.
func (p pullStatus) leaderless() bool {
	return p.is("503") || p.says("Leadership Change") || p.says("Consumer Deleted")
}

func (p pullStatus) is(code string) bool { return p.code == code }

func (p pullStatus) says(text string) bool { return strings.HasPrefix(p.description, text) }

// limit reads the number behind a text, or 0.
func (p pullStatus) limit(text string) int {
	rest, ok := strings.CutPrefix(p.description, text)
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(rest)
	return n
}

// duration reads the duration behind a text, or 0.
func (p pullStatus) duration(text string) time.Duration {
	rest, ok := strings.CutPrefix(p.description, text)
	if !ok {
		return 0
	}
	d, _ := time.ParseDuration(rest)
	return d
}
