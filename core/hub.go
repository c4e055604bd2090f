package natslease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/nats-io/nats.go"
)

// hub is what the clients with the same connection options share in a process: the one session, and what must outlive
// a session (tasks that arrived late, leases that are kept, what is known of the queues).
type hub struct {
	key string
	cfg *Config // a pointer, so that printing what holds a hub cannot reach the secrets
	log *slog.Logger

	current     atomic.Pointer[session]
	life        context.Context // ends when the hub is closed
	finish      context.CancelFunc
	workers     sync.WaitGroup  // goroutines that end with life
	predecessor <-chan struct{} // closed when the hubs that had these options before have let go of their connection; nil for none
	clients     int             // guarded by hubs

	mu      sync.Mutex
	closed  bool
	dialing *dialing                       // nil while no session is being opened
	feeds   map[feedKey]weak.Pointer[feed] // a feed lives as long as somebody uses it
	last    *session                       // the newest session, alive or not, for Stats

	dialed atomic.Pointer[flight] // of the newest dial

	anys  anyCalls      // of ReserveAny, which wait for tasks
	turns atomic.Uint64 // counts what ReserveAny has asked queues for

	breaker   *breaker
	reserving *bounds // calls of reserve, which may wait long
	calling   *bounds // all other calls
	keeper    keeper
	counter   counters
}

// dialing is a session that is being opened, shared by all calls that wait for it.
type dialing struct {
	probe   bool          // of a breaker that is not closed
	done    chan struct{} // closed when the fields below are set
	session *session
	err     error
}

type counters struct {
	generation   atomic.Uint64
	lost         atomic.Uint64
	dialFailures atomic.Uint64
	late         atomic.Uint64
	lastFailure  atomic.Pointer[failure]
}

var hubs = struct {
	sync.Mutex
	byKey   map[string]*hub
	closing map[string]<-chan struct{} // closed when the hubs that were left have let go of their connection
}{byKey: make(map[string]*hub), closing: make(map[string]<-chan struct{})}

// joinHub returns the process's hub for these options, made if there is none.
func joinHub(cfg *Config) *hub {
	key := cfg.key()
	hubs.Lock()
	defer hubs.Unlock()
	h := hubs.byKey[key]
	if h == nil {
		h = &hub{
			key: key, cfg: cfg, log: cfg.Logger, feeds: make(map[feedKey]weak.Pointer[feed]), breaker: newBreaker(cfg.Logger),
			reserving:   newBounds(cfg.MaxInFlight, cfg.MaxQueueWait),
			calling:     newBounds(cfg.MaxInFlight, cfg.MaxQueueWait),
			predecessor: hubs.closing[key],
		}
		h.life, h.finish = context.WithCancel(context.Background())
		h.keeper.hub = h
		hubs.byKey[key] = h
		secretsInUse.add(cfg)
	}
	h.clients++
	return h
}

// leave detaches one client; the last one closes the session. Whoever joins meanwhile gets a new hub, which dials only
// when this one's session has ended: two at once would be two connections.
func (h *hub) leave(ctx context.Context) error {
	hubs.Lock()
	h.clients--
	if h.clients > 0 {
		hubs.Unlock()
		return nil
	}
	delete(hubs.byKey, h.key)
	defer secretsInUse.remove(h.cfg)
	gone := make(chan struct{})
	hubs.closing[h.key] = gone
	hubs.Unlock()
	err := h.close(ctx)
	letGo := func() {
		hubs.Lock()
		if hubs.closing[h.key] == gone {
			delete(hubs.closing, h.key)
		}
		hubs.Unlock()
		close(gone)
	}
	if h.predecessor == nil {
		letGo()
		return err
	}
	go func() { // ends with the predecessor's leave, which has a deadline
		<-h.predecessor
		letGo()
	}()
	return err
}

// close gives back what the process holds and was not handed to anybody, then ends the session.
func (h *hub) close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.keeper.stop()
	for _, f := range h.allFeeds() {
		f.drain(ctx)
	}
	h.finish()
	s := h.current.Load()
	if s != nil {
		s.end(newError(CodeClientClosed, OutcomeUnknown, "the client was closed"))
	}
	ended := make(chan struct{})
	go func() {
		h.workers.Wait()
		if s != nil {
			s.done.Wait()
		}
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return inOperation("close", ctx.Err(), OutcomeUnknown)
	}
}

// session returns the live session, or dials one inside the caller's deadline. All callers share one dial, which has
// its own limit (ConnectTimeout): a caller that leaves does not stop it, and its result serves the next call.
func (h *hub) session(ctx context.Context) (*session, error) {
	if s := h.current.Load(); s != nil {
		if s.alive() {
			return s, nil
		}
		select {
		case <-s.ended: // and counted
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return nil, h.overdue(ctx).unsent()
	}
	s, d, err := h.sessionOrDial()
	if s != nil || err != nil {
		return s, err
	}
	select {
	case <-d.done:
		return d.session, d.err
	case <-ctx.Done():
		e := inOperation("", ctx.Err(), OutcomeNotSent).(*Error)
		if e.Code == CodeDeadline {
			e.Message = "the deadline passed while a connection was being opened"
			e.history = h.dialHistory(ctx)
		}
		return nil, e
	}
}

// sessionOrDial returns the live session or the dial that is under way, which it starts if there is none. That one lock
// decides it is what keeps dials single and probes of the breaker paired with their ends.
func (h *hub) sessionOrDial() (*session, *dialing, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, errClosed()
	}
	if s := h.current.Load(); s != nil && s.alive() {
		return s, nil, nil
	}
	if d := h.dialing; d != nil {
		if d.probe {
			return nil, nil, h.because(circuitOpen(jittered(probeRetryAfter)))
		}
		return nil, d, nil
	}
	counted, probe, err := h.breaker.begin()
	if err != nil {
		return nil, nil, h.because(err)
	}
	d := &dialing{probe: probe, done: make(chan struct{})}
	h.dialing = d
	h.workers.Add(1)
	go func() {
		defer h.workers.Done()
		h.open(d, counted)
	}()
	return nil, d, nil
}

func errClosed() *Error { return newError(CodeClientClosed, OutcomeNotSent, "the client was closed") }

// open ends the dial d, one way or the other, and tells the breaker how: at once when it failed, else once the session
// has answered something or ended.
func (h *hub) open(d *dialing, counted func(error)) {
	h.breaker.announce()
	s, err := h.dial()
	if err == nil {
		if refused := h.install(s, counted); refused != nil {
			s.end(refused)
			err = refused
		}
	}
	if err != nil {
		counted(err) // before the next dial can begin
		h.counter.dialFailures.Add(1)
		h.noteError(err)
	} else {
		d.session = s
	}
	d.err = err
	h.mu.Lock()
	h.dialing = nil
	h.mu.Unlock()
	close(d.done)
	h.breaker.announce()
	if err != nil {
		h.log.Warn("connecting failed", "error", err)
		return
	}
	h.log.Info("connected", "server", s.flight.server, "generation", s.generation)
}

// install makes s the hub's session.
func (h *hub) install(s *session, counted func(error)) *Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed()
	}
	if err := s.adopt(h.counter.generation.Load()+1, counted); err != nil {
		return err
	}
	h.counter.generation.Add(1)
	h.current.Store(s)
	h.last = s
	return nil
}

// sessionEnded is called once for each session that was installed, before anybody can see that it ended: so the breaker
// knows of it before the next dial.
func (h *hub) sessionEnded(s *session, cause *Error) {
	h.current.CompareAndSwap(s, nil)
	if cause.Code == CodeClientClosed {
		s.judge(cause)
		return
	}
	h.counter.lost.Add(1)
	h.noteError(cause)
	if !s.judge(cause) {
		h.breaker.failed(cause)
	}
}

func (h *hub) noteError(err error) {
	h.counter.lastFailure.Store(&failure{at: time.Now(), err: inOperation("", err, OutcomeUnknown).(*Error)})
}

// failure is what last went wrong with a session or a dial.
type failure struct {
	at  time.Time
	err *Error
}

// because adds to a refusal by the breaker what it is open for.
func (h *hub) because(refused error) error {
	var e *Error
	last := h.counter.lastFailure.Load()
	if last == nil || !errors.As(refused, &e) {
		return refused
	}
	e.history = fmt.Sprintf("the last failure, %s ago: %s", inSeconds(time.Since(last.at)), last.err.Explain())
	return e
}

// feed returns the one feed of a consumer.
func (h *hub) feed(stream, consumer string) *feed {
	key := feedKey{stream, consumer}
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.feeds[key].Value(); f != nil {
		return f
	}
	f := newFeed(h, key)
	h.feeds[key] = weak.Make(f)
	// The cleanup must not keep the hub alive, whose last session may know the feed.
	runtime.AddCleanup(f, func(h weak.Pointer[hub]) {
		if h := h.Value(); h != nil {
			h.forget(key)
		}
	}, weak.Make(h))
	return f
}

// forget removes a feed that nobody uses any more, unless another has taken its place.
func (h *hub) forget(key feedKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.feeds[key].Value() == nil {
		delete(h.feeds, key)
	}
}

func (h *hub) allFeeds() []*feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	feeds := make([]*feed, 0, len(h.feeds))
	for _, p := range h.feeds {
		if f := p.Value(); f != nil {
			feeds = append(feeds, f)
		}
	}
	return feeds
}

// spawn runs f on a goroutine that the hub owns; f must end soon after its context does.
func (h *hub) spawn(timeout time.Duration, f func(ctx context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.workers.Add(1)
	go func() {
		defer h.workers.Done()
		ctx, cancel := context.WithTimeout(h.life, timeout)
		defer cancel()
		f(ctx)
	}()
	return true
}

// overdue is the error of a call whose context ended while it waited for what another goroutine does on the session.
func (h *hub) overdue(ctx context.Context) *Error {
	h.mu.Lock()
	s := h.last
	h.mu.Unlock()
	if s != nil && s.alive() {
		return s.overdue(ctx)
	}
	e := inOperation("", ctx.Err(), OutcomeUnknown).(*Error)
	e.history = h.dialHistory(ctx)
	return e
}

// dialHistory is what the newest dial went through when a call's context ended, and, if it had hardly begun, the failure
// before it.
func (h *hub) dialHistory(ctx context.Context) string {
	f := h.dialed.Load()
	if f == nil {
		return ""
	}
	history := f.history(ctx.Err())
	if last := h.counter.lastFailure.Load(); last != nil && time.Since(f.base) < longSilence {
		history += fmt.Sprintf("\nbefore that, %s ago: %s", inSeconds(time.Since(last.at)), last.err.Explain())
	}
	return history
}

var errNoResponders = errors.New("nobody listens there")

func isNoResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header != nil && m.Header.Get("Status") == "503"
}
