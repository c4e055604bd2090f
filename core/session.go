package natslease

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"
)

// unsentBudget bounds the bytes of published messages that one session holds unanswered.
const unsentBudget = 16 << 20

// syncSpacing keeps a flood of polls that are answered from memory from becoming a flood of PINGs.
const syncSpacing = time.Millisecond

// session is one TCP connection to one server. It is never reconnected: once lost it is replaced by another session
// with a higher generation.
//
// It is dialed, started, adopted by its hub and ended, in this order; it may end at any point, because nats.go's
// callbacks run from the beginning.
type session struct {
	hub      *hub
	flight   *flight
	pulse    pulse
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
	glances   map[*nats.Subscription]*glance
	listening map[*nats.Subscription]*Listener
	marks     map[*nats.Msg]chan struct{} // see sync

	plain        bool         // no TLS and no WebSocket: see speak
	maxPayload   int64        // of a message, headers included
	clustered    bool         // the server has others beside it
	roundTrip    atomic.Int64 // see measure
	spoken       atomic.Uint64
	spokenBytes  atomic.Uint64
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
		glances:   make(map[*nats.Subscription]*glance),
		listening: make(map[*nats.Subscription]*Listener),
		marks:     make(map[*nats.Msg]chan struct{}),
	}
	s.syncs.spacing, s.syncs.overdue = syncSpacing, s.overdue
	s.syncs.spawn = func(g func(ctx context.Context)) bool { return h.spawn(h.cfg.Timeout, g) }
	s.syncs.run = func(ctx context.Context) (struct{}, error) { return struct{}{}, s.sync(ctx) }
	return s
}

// start takes over a connection that nats.go has opened.
func (s *session) start(ctx context.Context, nc *nats.Conn, w *wire) error {
	s.mu.Lock()
	s.nc, s.wire = nc, w
	s.plain, s.maxPayload = isPlain(nc), nc.MaxPayload()
	s.clustered = nc.ConnectedClusterName() != ""
	cause := s.cause
	s.mu.Unlock()
	if cause == nil {
		s.flight.mark(&s.flight.connected)
		err := s.subscribe(ctx)
		if err == nil {
			s.done.Add(2)
			go s.dispatch()
			go s.watch()
			return nil
		}
		s.end(s.lossBy(err))
		cause = s.cause // of two that end it the first is right
	}
	s.hangUp(nc, w)
	if err := ctx.Err(); err != nil {
		return err
	}
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
	switch e.Code {
	case CodeConnectionLost:
		e.Code, e.Outcome = CodeConnectFailed, OutcomeNotSent
	case CodePermissionDenied:
		e.Outcome = OutcomeRejected
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
	cause.history = s.flight.history(cause.Cause)
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
	if err == nil { // of an end whoever ended it tells; here answers wait, which a log handler must not hold up
		s.hub.spawn(s.hub.cfg.Timeout, func(context.Context) { s.hub.breaker.announce() })
	}
	return true
}

// publish sends one message. It does not block: see wire.
func (s *session) publish(subject, reply string, header nats.Header, data []byte) error {
	var err error
	if s.plain {
		err = s.speak(subject, reply, header, data)
	} else if header == nil {
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

// ping waits for the server's PONG. It listens for nothing, but is counted as awaiting something.
func (s *session) ping(ctx context.Context) error {
	id, err := s.register(&oneReply{failure: make(chan *Error, 1)})
	if err != nil {
		return err
	}
	defer s.unregister(id)
	started := time.Now()
	err = s.nc.FlushWithContext(ctx)
	switch {
	case err == nil:
		s.measure(time.Since(started))
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
	e.history = s.flight.history(nil)
	return e
}
