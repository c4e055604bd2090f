package natslease

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// A listener is a call that awaits answers in the session's inbox. Its methods run on the session's goroutines and
// must not block.
type listener interface {
	// reply is an answer to the request of that slot.
	reply(slot int, m *nats.Msg)
	// denied tells that the server forbids publishing to subject; it returns whether the call published there.
	denied(subject string, err *Error) bool
	// lost tells that the session ended: no answer will come.
	lost(err *Error)
}

// inboxBuffer is how many messages may wait between nats.go's reader and the session's dispatcher. The dispatcher never
// blocks, so it stays near empty; a message that finds it full would be dropped.
const inboxBuffer = 65536

// subscribe opens the inbox, and waits until the server has agreed: without it no answer would be heard, of requests
// that may have been carried out.
func (s *session) subscribe(ctx context.Context) error {
	sub, err := s.nc.ChanSubscribe(s.inbox+"*", s.arrivals)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.sub = sub
	s.mu.Unlock()
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if err := s.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		s.onPermissionViolation(err) // nats.go calls its handler some time later
		return err
	}
	return nil
}

// subscribeFor subscribes to a subject outside the inbox, and puts down for whom before a message or the server's refusal
// can be dispatched. nats.go does not wait for the server.
func subscribeFor[T any](s *session, in map[*nats.Subscription]*T, subject string, whom *T) (*nats.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, err := s.nc.ChanSubscribe(subject, s.arrivals)
	if err == nil {
		in[sub] = whom
	}
	return sub, err
}

// register makes l reachable at the inbox subjects that subject(id, slot) gives.
func (s *session) register(l listener) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return 0, s.cause.unsent()
	}
	s.nextID++
	id := s.nextID
	s.listeners[id] = l
	if len(s.listeners) == 1 {
		now := s.flight.now()
		s.awaitedSince.Store(now)
		s.pulse.begin(now)
		if s.resting.CompareAndSwap(true, false) {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
	return id, nil
}

func (s *session) unregister(id uint64) {
	s.mu.Lock()
	delete(s.listeners, id)
	if len(s.listeners) == 0 {
		s.awaitedSince.Store(0)
		s.pulse.beat(s.flight.now())
	}
	s.mu.Unlock()
}

// subject is where the answer to one request of a listener goes.
func (s *session) subject(id uint64, slot int) string {
	b := make([]byte, 0, len(s.inbox)+24)
	b = append(b, s.inbox...)
	b = strconv.AppendUint(b, id, 36)
	if slot > 0 {
		b = append(b, '_')
		b = strconv.AppendInt(b, int64(slot), 36)
	}
	return string(b)
}

// dispatch gives every arrival to whom it is for. It ends when nats.go has closed the connection, after the last
// arrival, so that an answer that came before the end is not lost with it.
func (s *session) dispatch() {
	defer s.done.Done()
	for m := <-s.arrivals; m != nil; m = <-s.arrivals {
		switch m.Sub {
		case s.sub:
			s.judge(nil) // whoever answers is there
			if token, ok := strings.CutPrefix(m.Subject, s.inbox); ok {
				s.dispatchReply(token, m)
			} else if m.Reply != "" {
				s.dispatchTask(m)
			}
		case nil:
			s.dispatchMark(m)
		default:
			s.dispatchOther(m)
		}
	}
	s.mu.Lock()
	cause := s.cause
	left := s.listeners
	s.listeners = make(map[uint64]listener)
	s.mu.Unlock()
	for _, l := range left {
		l.lost(cause)
	}
	for _, f := range s.hub.allFeeds() {
		f.sessionGone(s, cause)
	}
	close(s.gone)
}

// dispatchTask routes a task to the feed of the consumer that its ack subject names.
func (s *session) dispatchTask(m *nats.Msg) {
	ack, err := ParseAckSubject(m.Reply)
	if err != nil {
		s.hub.log.Warn("a message that is no task came to the inbox", "subject", m.Subject, "reply", m.Reply)
		return
	}
	f := s.lastFeed
	if f == nil || f.consumer != ack.Consumer || f.stream != ack.Stream {
		f = s.hub.feed(ack.Stream, ack.Consumer)
		s.lastFeed = f
	}
	f.deliver(s, newLease(m, ack, s.flight.at(s.pulse.arrival(s.flight.lastRead.Load()))))
}

func (s *session) dispatchReply(token string, m *nats.Msg) {
	idPart, slotPart, _ := strings.Cut(token, "_")
	id, err := strconv.ParseUint(idPart, 36, 64)
	if err != nil {
		return
	}
	slot := 0
	if slotPart != "" {
		n, err := strconv.ParseInt(slotPart, 36, 32)
		if err != nil {
			return
		}
		slot = int(n)
	}
	s.mu.Lock()
	l := s.listeners[id]
	s.mu.Unlock()
	if l != nil {
		l.reply(slot, m)
	}
}

// A question that arrives while a cluster changes its leader can get lost: it is asked again after firstSilence, and then
// after twice as long each time, up to lastSilence. A server may be slow, so that the answer to any of them counts.
const (
	firstSilence = 500 * time.Millisecond
	lastSilence  = 2 * time.Second
)

// request sends one message and waits for one answer; again has it repeat what does no harm twice.
func (s *session) request(ctx context.Context, subject string, data []byte, again bool) (*nats.Msg, error) {
	r := &oneReply{subject: subject, answer: make(chan *nats.Msg, 1), failure: make(chan *Error, 1)}
	id, err := s.register(r)
	if err != nil {
		return nil, err
	}
	defer s.unregister(id)
	if err := s.publish(subject, s.subject(id, 0), nil, data); err != nil {
		return nil, err
	}
	for silence := firstSilence; ; silence = min(2*silence, lastSilence) {
		var silent <-chan time.Time
		if again {
			silent = time.After(silence)
		}
		select {
		case m := <-r.answer:
			return m, nil
		case e := <-r.failure:
			return nil, e
		case <-ctx.Done():
			return nil, s.overdue(ctx)
		case <-silent:
			_ = s.publish(subject, s.subject(id, 0), nil, data) // where it fails the session ends, of which r is told
		}
	}
}

// oneReply is the listener of session.request.
type oneReply struct {
	subject string
	answer  chan *nats.Msg
	failure chan *Error
}

func (r *oneReply) reply(_ int, m *nats.Msg) {
	select {
	case r.answer <- m:
	default: // a second answer to the same request says nothing new
	}
}

func (r *oneReply) denied(subject string, err *Error) bool {
	if subject != r.subject {
		return false
	}
	r.lost(err)
	return true
}

func (r *oneReply) lost(err *Error) {
	select {
	case r.failure <- err:
	default:
	}
}
