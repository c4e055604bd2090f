package natslease

import (
	"context"

	"github.com/nats-io/nats.go"
)

// sensor listens for one publish to a queue's subjects. The subscriptions end with their first message, so that a busy
// queue costs no second copy of its tasks. They share the session's inbox channel: what has been dispatched after a
// round trip includes what was published before it.
type sensor struct {
	session *session
	feed    *feed
	subs    []*nats.Subscription
}

// newSensor subscribes; nil when that is not possible.
func newSensor(s *session, f *feed, subjects []string) *sensor {
	n := &sensor{session: s, feed: f}
	for _, subject := range subjects {
		sub, err := s.nc.ChanSubscribe(subject, s.arrivals)
		if err != nil {
			n.end()
			return nil
		}
		n.subs = append(n.subs, sub)
		s.mu.Lock()
		s.sensors[sub] = n
		s.mu.Unlock()
		if err := sub.AutoUnsubscribe(1); err != nil {
			n.end()
			return nil
		}
	}
	return n
}

// end stops listening.
func (n *sensor) end() {
	n.session.mu.Lock()
	for _, sub := range n.subs {
		delete(n.session.sensors, sub)
	}
	n.session.mu.Unlock()
	for _, sub := range n.subs {
		_ = sub.Unsubscribe() // it may have ended by itself
	}
}

// dispatchSensed tells the feed whose subject a message was published to.
func (s *session) dispatchSensed(sub *nats.Subscription) {
	s.mu.Lock()
	n := s.sensors[sub]
	s.mu.Unlock()
	if n != nil {
		n.end()
		n.feed.heard(n)
	}
}

// sensorDenied tells a feed that it cannot listen to subject; false when no feed wanted to.
func (s *session) sensorDenied(subject string) bool {
	var denied []*sensor
	s.mu.Lock()
	for sub, n := range s.sensors {
		if sub.Subject == subject {
			denied = append(denied, n)
		}
	}
	s.mu.Unlock()
	for _, n := range denied {
		n.end()
		n.feed.blinded(n)
	}
	return len(denied) > 0
}

// sync returns when everything that the server sent before it answered a PING has been dispatched.
func (s *session) sync(ctx context.Context) error {
	if err := s.ping(ctx); err != nil {
		return err
	}
	mark := new(nats.Msg) // its Sub is nil, as no arrival's is
	passed := make(chan struct{})
	s.mu.Lock()
	s.marks[mark] = passed
	s.mu.Unlock()
	select {
	case s.arrivals <- mark:
	case <-s.gone:
		return s.lostBefore()
	case <-ctx.Done():
		return s.overdue(ctx)
	}
	select {
	case <-passed:
		return nil
	case <-s.gone:
		return s.lostBefore()
	case <-ctx.Done():
		return s.overdue(ctx)
	}
}

func (s *session) dispatchMark(mark *nats.Msg) {
	s.mu.Lock()
	passed := s.marks[mark]
	delete(s.marks, mark)
	s.mu.Unlock()
	if passed != nil {
		close(passed)
	}
}
