package natslease

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// sensor listens for one publish to a queue's subjects. The subscriptions end with their first message, so that a busy
// queue costs no second copy of its tasks. They share the session's inbox channel: what has been dispatched after a
// round trip includes what was published before it. It is guarded by feed.mu.
type sensor struct {
	session *session
	feed    *feed
	made    time.Time
	subs    []*nats.Subscription
}

// newSensor subscribes; nil when that is not possible. f.mu is held.
func newSensor(s *session, f *feed, subjects []string) *sensor {
	n := &sensor{session: s, feed: f, made: time.Now()}
	for _, subject := range subjects {
		sub, err := subscribeFor(s, s.sensors, subject, n)
		if err != nil {
			n.end()
			return nil
		}
		n.subs = append(n.subs, sub)
		if err := sub.AutoUnsubscribe(1); err != nil {
			n.end()
			return nil
		}
	}
	return n
}

// end stops listening; feed.mu is held.
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

// dispatchOther tells the feed whose subject a message was published to, or the glance that it answers, or who listens.
func (s *session) dispatchOther(m *nats.Msg) {
	s.mu.Lock()
	n, g, l := s.sensors[m.Sub], s.glances[m.Sub], s.listening[m.Sub]
	s.mu.Unlock()
	switch {
	case n != nil:
		n.feed.heard(n)
	case g != nil:
		g.arrived(m)
	case l != nil:
		l.heard(m.Data)
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
		n.feed.blinded(n)
	}
	return len(denied) > 0
}

// What a server has confirmed it tells others of at the same time, not before.
const (
	// hearLag is how long after that it may take to send a message to those who listen.
	hearLag = 2 * time.Millisecond
	// countLag is how long it may go on to answer that a consumer has nothing.
	countLag = 10 * time.Millisecond
	// commitLag is how long replicas may take to agree on a message that they have been told of.
	commitLag = 250 * time.Millisecond
	// clusterLag is how much longer either takes in a cluster, where another server has to be told first.
	clusterLag = 4
	// slowLag is how many round trips either takes where those are slow, because the server or this process is busy.
	slowLag = 4
)

// lag is how long what usually takes d takes this server.
func (s *session) lag(d time.Duration) time.Duration {
	if s.clustered {
		d *= clusterLag
	}
	return max(d, slowLag*time.Duration(s.roundTrip.Load()))
}

// measure takes note of how long a round trip took: of the longest, which is forgotten bit by bit.
func (s *session) measure(d time.Duration) {
	s.roundTrip.Store(max(int64(d), s.roundTrip.Load()*3/4))
}

// sync returns when everything has been dispatched that the server sent until hearLag from now.
func (s *session) sync(ctx context.Context) error {
	if err := s.ping(ctx); err != nil { // tells how slow the server is
		return err
	}
	if !sleep(ctx, s.lag(hearLag)) {
		<-ctx.Done() // or nearly so
		return s.overdue(ctx)
	}
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
