package natslease

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/singleflight"
)

// hub is what the clients with the same connection options share in a process: the one session, and what must outlive
// a session (tasks that arrived late, leases that are kept, what is known of the queues).
type hub struct {
	key string
	cfg Config
	log *slog.Logger

	current atomic.Pointer[session]
	dials   singleflight.Group
	life    context.Context // ends when the hub is closed
	finish  context.CancelFunc
	workers sync.WaitGroup // goroutines that end with life

	mu      sync.Mutex
	clients int
	closed  bool
	feeds   map[feedKey]weak.Pointer[feed] // a feed lives as long as somebody uses it
	last    *session                       // the newest session, alive or not, for Stats

	breaker   *breaker
	reserving *bounds // calls of reserve, which may wait long
	calling   *bounds // all other calls
	keeper    keeper
	counter   counters
}

type counters struct {
	generation   atomic.Uint64
	lost         atomic.Uint64
	dialFailures atomic.Uint64
	late         atomic.Uint64
	lastError    atomic.Pointer[string]
}

var hubs = struct {
	sync.Mutex
	byKey map[string]*hub
}{byKey: make(map[string]*hub)}

// joinHub returns the process's hub for these options, made if there is none.
func joinHub(cfg Config) *hub {
	key := cfg.key()
	hubs.Lock()
	defer hubs.Unlock()
	h := hubs.byKey[key]
	if h == nil {
		h = &hub{
			key: key, cfg: cfg, log: cfg.Logger, feeds: make(map[feedKey]weak.Pointer[feed]), breaker: newBreaker(cfg.Logger),
			reserving: newBounds(cfg.MaxInFlight, cfg.MaxQueueWait),
			calling:   newBounds(cfg.MaxInFlight, cfg.MaxQueueWait),
		}
		h.life, h.finish = context.WithCancel(context.Background())
		h.keeper.hub = h
		hubs.byKey[key] = h
	}
	h.clients++
	return h
}

// leave detaches one client; the last one closes the session.
func (h *hub) leave(ctx context.Context) error {
	hubs.Lock()
	h.clients--
	last := h.clients == 0
	if last {
		delete(hubs.byKey, h.key)
	}
	hubs.Unlock()
	if !last {
		return nil
	}
	return h.close(ctx)
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
	if s := h.current.Load(); s != nil && s.alive() {
		return s, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, inOperation("", err, OutcomeNotSent)
	}
	if err := h.breaker.admit(); err != nil {
		return nil, err
	}
	shared := h.dials.DoChan("", func() (any, error) {
		return h.open()
	})
	select {
	case r := <-shared:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*session), nil
	case <-ctx.Done():
		e := inOperation("", ctx.Err(), OutcomeNotSent).(*Error)
		if e.Code == CodeDeadline {
			e.Message = "the deadline passed while a connection was being opened"
		}
		return nil, e
	}
}

func (h *hub) open() (*session, error) {
	if s := h.current.Load(); s != nil && s.alive() {
		return s, nil
	}
	counted, err := h.breaker.begin()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.life, h.cfg.ConnectTimeout)
	defer cancel()
	s, err := h.dial(ctx)
	if err != nil {
		counted(err)
		h.counter.dialFailures.Add(1)
		h.noteError(err)
		h.log.Warn("connecting failed", "error", err)
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		go s.end(newError(CodeClientClosed, OutcomeNotSent, "the client was closed"))
		return nil, newError(CodeClientClosed, OutcomeNotSent, "the client was closed")
	}
	s.generation = h.counter.generation.Add(1)
	s.verdict.Store(&counted)
	h.current.Store(s)
	h.last = s
	h.log.Info("connected", "server", s.flight.server, "generation", s.generation)
	return s, nil
}

// sessionEnded is called once for each session that was started.
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
	h.log.Warn("session lost", "server", s.flight.server, "generation", s.generation, "error", cause)
}

func (h *hub) noteError(err error) {
	text := err.Error()
	h.counter.lastError.Store(&text)
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
	runtime.AddCleanup(f, h.forget, key)
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

// request sends a request to the JetStream API. "No responders" comes back as errNoResponders: what it means depends on
// what was asked.
func (h *hub) request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	s, err := h.session(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.request(ctx, subject, data)
	if err != nil {
		return nil, err
	}
	if isNoResponders(m) {
		return nil, errNoResponders
	}
	return m, nil
}

var errNoResponders = errors.New("nobody listens there")

func isNoResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header != nil && m.Header.Get("Status") == "503"
}
