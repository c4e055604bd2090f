package natslease

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// pull is one request for tasks that the server holds until it is filled, ended by a status, or expired. It may outlive
// the call that sent it; the feed knows which pulls are out, because closing the connection under one can cost its
// tasks an ack_wait. Its fields are guarded by feed.mu once it is open.
type pull struct {
	feed    *feed
	session *session
	id      uint64
	owner   *reservation // nil when its call has returned
	batch   int
	subject string
}

// open registers p for the server's status.
func (f *feed) open(p *pull) error {
	id, err := p.session.register(p)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.id = id
	if f.closed {
		p.session.unregister(id)
		return newError(CodeClientClosed, OutcomeNotSent, "the client was closed")
	}
	if f.pulls == nil {
		f.pulls = make(map[*pull]struct{})
	}
	f.pulls[p] = struct{}{}
	f.credit += p.batch
	p.owner.pull, p.owner.status = p, nil
	return nil
}

// closePull forgets a pull that the server has ended with so many tasks undelivered; f.mu is held.
func (f *feed) closePull(p *pull, undelivered int) {
	if _, ok := f.pulls[p]; !ok {
		return
	}
	delete(f.pulls, p)
	p.session.unregister(p.id)
	f.credit -= undelivered
	f.dropFilledPulls()
}

// dropFilledPulls forgets the pulls that nobody waits for once no pull can be out any more: one that is filled ends
// without a status. f.mu is held.
func (f *feed) dropFilledPulls() {
	if f.credit <= 0 {
		for p := range f.pulls {
			if p.owner == nil {
				delete(f.pulls, p)
				p.session.unregister(p.id)
			}
		}
	}
	if len(f.pulls) > 0 {
		return
	}
	f.credit = 0
	if f.drained != nil {
		close(f.drained)
		f.drained = nil
	}
}

// reply is the status with which the server ends the pull.
func (p *pull) reply(_ int, m *nats.Msg) {
	f := p.feed
	undelivered, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	if err != nil {
		undelivered = p.batch
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closePull(p, undelivered)
	if r := p.owner; r != nil {
		r.status = &pullStatus{code: m.Header.Get("Status"), description: m.Header.Get("Description")}
		r.signal()
	}
	for _, r := range f.waiters {
		if len(r.got) > 0 {
			r.short = true
			r.signal()
		}
	}
}

func (p *pull) denied(subject string, err *Error) bool {
	if subject != p.subject {
		return false
	}
	p.lost(err)
	return true
}

func (p *pull) lost(err *Error) {
	f := p.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closePull(p, p.batch)
	if r := p.owner; r != nil {
		r.err = err
		r.signal()
	}
}

// pullStatus is how the server ended a pull.
type pullStatus struct {
	code        string
	description string
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
