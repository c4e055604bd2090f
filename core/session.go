package natslease

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"
)

// unsentBudget bounds the bytes of published messages that one session holds unanswered.
const unsentBudget = 16 << 20

// inboxBuffer is how many messages may wait between nats.go's reader and the session's dispatcher. The dispatcher never
// blocks, so it stays near empty; a message that finds it full would be dropped.
const inboxBuffer = 65536

// syncSpacing keeps a flood of polls that are answered from memory from becoming a flood of PINGs.
const syncSpacing = time.Millisecond

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

// session is one TCP connection to one server. It is never reconnected: once lost it is replaced by another session
// with a higher generation.
//
// It is dialed, started, adopted by its hub and ended, in this order; it may end at any point, because nats.go's
// callbacks run from the beginning.
type session struct {
	hub      *hub
	flight   *flight
	inbox    string         // the inbox's prefix, with the final dot
	arrivals chan *nats.Msg // never closed: nil is the end
	budget   *semaphore.Weighted
	lastFeed *feed // of the dispatcher: tasks come in runs of one consumer

	// Written under mu, before the session is given to anybody, who may then read them without it.
	nc         *nats.Conn
	wire       *wire
	sub        *nats.Subscription
	generation uint64

	mu        sync.Mutex
	adopted   bool
	listeners map[uint64]listener
	nextID    uint64
	cause     *Error // why the session ended; set once
	sensors   map[*nats.Subscription]*sensor
	marks     map[*nats.Msg]chan struct{} // see sync

	awaitedSince atomic.Int64                // flight offset at which something began to be awaited; 0 = nothing is
	broken       atomic.Bool                 // nothing can be written any more: nats.go's reader is about to end the session
	resting      atomic.Bool                 // the watch is in its long sleep
	verdict      atomic.Pointer[func(error)] // tells the breaker what became of the session; nil once told
	wake         chan struct{}
	ended        chan struct{} // closed when cause is set and counted
	gone         chan struct{} // closed when the last arrival has been dispatched
	syncs        rounds[struct{}]
	done         sync.WaitGroup
}

func newSession(h *hub, f *flight) *session {
	s := &session{
		hub:       h,
		flight:    f,
		inbox:     h.cfg.InboxPrefix + "." + randomID() + ".",
		arrivals:  make(chan *nats.Msg, inboxBuffer),
		budget:    semaphore.NewWeighted(unsentBudget),
		listeners: make(map[uint64]listener),
		wake:      make(chan struct{}, 1),
		ended:     make(chan struct{}),
		gone:      make(chan struct{}),
		sensors:   make(map[*nats.Subscription]*sensor),
		marks:     make(map[*nats.Msg]chan struct{}),
	}
	s.syncs.spacing = syncSpacing
	s.syncs.spawn = func(g func(ctx context.Context)) bool { return h.spawn(h.cfg.Timeout, g) }
	s.syncs.run = func(ctx context.Context) (struct{}, error) { return struct{}{}, s.sync(ctx) }
	return s
}

// start takes over a connection that nats.go has opened.
func (s *session) start(nc *nats.Conn, w *wire) error {
	s.mu.Lock()
	s.nc, s.wire = nc, w
	cause := s.cause
	s.mu.Unlock()
	if cause == nil {
		s.flight.mark(&s.flight.connected)
		sub, err := nc.ChanSubscribe(s.inbox+"*", s.arrivals)
		if err == nil {
			s.mu.Lock()
			s.sub = sub
			s.mu.Unlock()
			s.done.Add(2)
			go s.dispatch()
			go s.watch()
			return nil
		}
		cause = s.lossBy(err)
		s.end(cause)
		cause = s.cause // of two that end it the first is right
	}
	s.hangUp(nc, w)
	return s.beforeUse(cause)
}

// adopt counts s as the hub's session of that generation, unless it has ended already. From here on counted is called
// when the session has answered something or ended.
func (s *session) adopt(generation uint64, counted func(error)) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return s.beforeUse(s.cause)
	}
	s.adopted, s.generation = true, generation
	s.verdict.Store(&counted)
	return nil
}

// beforeUse is the error of a dial whose session ended before it could be used.
func (s *session) beforeUse(cause *Error) *Error {
	e := *cause
	if e.Code == CodeConnectionLost {
		e.Code, e.Outcome = CodeConnectFailed, OutcomeNotSent
	}
	return e.unsent()
}

// alive tells whether the session may be given to a call.
func (s *session) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return !s.broken.Load()
	}
}

// end ends the session, once: later causes are consequences. Calls in flight fail as soon as what has already arrived
// is dispatched.
func (s *session) end(cause *Error) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		<-s.ended
		return
	}
	s.flight.mark(&s.flight.ended)
	cause.history = s.flight.history()
	s.cause = cause
	adopted, nc, w := s.adopted, s.nc, s.wire
	s.mu.Unlock()
	if adopted {
		s.hub.sessionEnded(s, cause)
	}
	close(s.ended)
	if nc != nil {
		s.hangUp(nc, w)
	}
	if adopted {
		s.hub.breaker.announce()
		if cause.Code != CodeClientClosed {
			s.hub.log.Warn("session lost", "server", s.flight.server, "generation", s.generation, "error", cause)
		}
	}
}

// hangUp closes the socket before it closes nats.go's connection: whatever nats.go is doing, nothing then waits for the
// network.
func (s *session) hangUp(nc *nats.Conn, w *wire) {
	_ = w.Close()
	nc.Close()
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
		s.flight.mark(&s.awaitedSince)
		if s.resting.CompareAndSwap(true, false) {
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
	}
	return id, nil
}

// lostBefore is the error of a call that found its session ended, or about to end, before it sent anything.
func (s *session) lostBefore() *Error {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	if cause == nil {
		cause = s.lossBy(nil)
	}
	return cause.unsent()
}

func (s *session) unregister(id uint64) {
	s.mu.Lock()
	delete(s.listeners, id)
	if len(s.listeners) == 0 {
		s.awaitedSince.Store(0)
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

// judge tells the breaker, once, whether the session was a success. It returns whether it still had to be told.
func (s *session) judge(err error) bool {
	if s.verdict.Load() == nil {
		return false
	}
	told := s.verdict.Swap(nil)
	if told == nil {
		return false
	}
	(*told)(err)
	return true
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
			s.dispatchSensed(m.Sub)
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
	f.deliver(s, newLease(m, ack, s.flight.lastByte()))
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

// publish hands one message to nats.go. It does not block: see wire.
func (s *session) publish(subject, reply string, header nats.Header, data []byte) error {
	var err error
	if header == nil {
		err = s.nc.PublishRequest(subject, reply, data)
	} else {
		err = s.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: header, Data: data})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrConnectionClosed), s.wire.failure() != nil:
		s.broken.Store(true)
		return s.lostBefore()
	case errors.Is(err, nats.ErrMaxPayload):
		return newError(CodePayloadTooLarge, OutcomeRejected, "%d bytes are more than the server's max_payload of %d", len(data), s.nc.MaxPayload())
	default:
		return newError(CodeServer, OutcomeNotSent, "%s", redactError(err))
	}
}

// onClosed runs when nats.go has ended the connection, for whatever reason, and its reader will deliver nothing more.
func (s *session) onClosed(nc *nats.Conn) {
	s.end(s.lossBy(nc.LastError()))
	s.arrivals <- nil
}

// lossBy is the cause of a session that the network has ended.
func (s *session) lossBy(err error) *Error {
	cause := newError(CodeConnectionLost, OutcomeUnknown, "the connection to %s ended", s.flight.server)
	s.mu.Lock()
	w := s.wire
	s.mu.Unlock()
	if w != nil && (err == nil || isTimeout(err) || errors.Is(err, net.ErrClosed)) {
		if failure := w.failure(); failure != nil {
			err = failure // what the reader met is its consequence
		}
	}
	if err != nil {
		cause.Cause = err
		cause.Message += ": " + redactError(err)
	}
	return cause
}

func (s *session) onLameDuck(*nats.Conn) {
	s.end(newError(CodeConnectionLost, OutcomeUnknown, "%s is shutting down (lame duck mode)", s.flight.server))
}

// onServerError runs for every -ERR that leaves the connection open, and for nats.go's own complaints.
func (s *session) onServerError(_ *nats.Conn, _ *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		s.onPermissionViolation(err)
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired),
		errors.Is(err, nats.ErrAuthorization):
		s.end(&Error{Code: CodeAuthentication, Outcome: OutcomeUnknown, Message: s.flight.server + " ended the session: " + redactError(err), Cause: err})
	default:
		s.hub.log.Warn("nats", "server", s.flight.server, "error", redactError(err))
	}
}

// onPermissionViolation matches the refusal to the calls that caused it: the server names only the subject.
func (s *session) onPermissionViolation(err error) {
	_, quoted, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(quoted, `"`)
	denied := newError(CodePermissionDenied, OutcomeRejected, "the server's permissions forbid %s", violation(err, subject))
	denied.Cause = err
	if strings.Contains(err.Error(), "Subscription to") {
		if s.sensorDenied(subject) {
			s.hub.log.Debug("publishes cannot be listened for", "subject", subject)
			return
		}
		// Without its inbox the session can hear nothing. It stays the hub's session so that each call fails at
		// once, and is dropped so that a later call sees corrected permissions.
		s.end(denied)
		return
	}
	s.mu.Lock()
	var all []listener
	for _, l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	matched := false
	for _, l := range all {
		matched = l.denied(subject, denied) || matched
	}
	if !matched {
		s.hub.log.Warn("permission violation of no call in flight", "subject", subject)
	}
}

func violation(err error, subject string) string {
	if strings.Contains(err.Error(), "Subscription to") {
		return "subscribing to " + strconv.Quote(subject) + ": allow it, or set InboxPrefix to what is allowed"
	}
	return "publishing to " + strconv.Quote(subject)
}

// request sends one message and waits for one answer.
func (s *session) request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	r := &oneReply{subject: subject, answer: make(chan *nats.Msg, 1), failure: make(chan *Error, 1)}
	id, err := s.register(r)
	if err != nil {
		return nil, err
	}
	defer s.unregister(id)
	if err := s.publish(subject, s.subject(id, 0), nil, data); err != nil {
		return nil, err
	}
	select {
	case m := <-r.answer:
		return m, nil
	case e := <-r.failure:
		return nil, e
	case <-ctx.Done():
		return nil, s.overdue(ctx)
	}
}

// ping waits for the server's PONG. It listens for nothing, but is counted as awaiting something.
func (s *session) ping(ctx context.Context) error {
	id, err := s.register(&oneReply{failure: make(chan *Error, 1)})
	if err != nil {
		return err
	}
	defer s.unregister(id)
	err = s.nc.FlushWithContext(ctx)
	switch {
	case err == nil:
		s.judge(nil)
		return nil
	case ctx.Err() != nil:
		return s.overdue(ctx)
	default: // nats.go has closed the connection, and tells the session in a moment
		select {
		case <-s.ended:
			return s.cause
		case <-ctx.Done():
			return s.overdue(ctx)
		}
	}
}

// overdue is the error of a call whose context ended while its answer was awaited.
func (s *session) overdue(ctx context.Context) *Error {
	e := inOperation("", ctx.Err(), OutcomeUnknown).(*Error)
	if silence, ok := s.flight.since(&s.flight.lastRead); ok && silence > 100*time.Millisecond {
		e.Message += "; it has been silent for " + silence.Round(time.Millisecond).String()
	}
	e.history = s.flight.history()
	return e
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
