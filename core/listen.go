package natslease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// Listener hears what is published to one subject, for as long as the session lives on which it was made.
type Listener struct {
	session *session
	sub     *nats.Subscription
	heard   func(data []byte)
	denied  atomic.Pointer[Error]
}

// Listen calls heard with what is published to a subject from now on; heard must not wait for anything. When Listen
// returns the server has agreed.
func (c *Client) Listen(ctx context.Context, subject string, heard func(data []byte)) (*Listener, error) {
	const operation = "listen"
	if finding := checkSubject(subject, maxSubject); finding != "" {
		return nil, inOperation(operation, configError("the subject %s", finding), OutcomeRejected)
	}
	ctx, cancel, err := c.begin(ctx, c.hub.calling)
	if err != nil {
		return nil, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	s, err := c.hub.session(ctx)
	if err != nil {
		return nil, inOperation(operation, err, OutcomeNotSent)
	}
	l := &Listener{session: s, heard: heard}
	if l.sub, err = subscribeFor(s, s.listening, subject, l); err != nil {
		return nil, inOperation(operation, s.lostBefore(), OutcomeNotSent)
	}
	err = s.ping(ctx)
	if err != nil {
		l.Close()
		return nil, inOperation(operation, err, OutcomeUnknown)
	}
	last := s.nc.LastError()
	if errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), strconv.Quote(subject)) {
		s.onPermissionViolation(last) // nats.go calls its handler some time later, for which l stays among the listeners
	}
	if denied := l.denied.Load(); denied != nil {
		return nil, inOperation(operation, denied, OutcomeRejected)
	}
	return l, nil
}

// Alive tells whether the listener has heard everything so far.
func (l *Listener) Alive() bool { return l.session.alive() && l.denied.Load() == nil }

// Close stops listening.
func (l *Listener) Close() {
	l.session.mu.Lock()
	delete(l.session.listening, l.sub)
	l.session.mu.Unlock()
	_ = l.sub.Unsubscribe() // the session may have ended
}

// listenerDenied tells listeners that they may not hear a subject; false when there are none.
func (s *session) listenerDenied(subject string, err *Error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for sub, l := range s.listening {
		if sub.Subject == subject {
			l.denied.Store(err)
			found = true
		}
	}
	return found
}
