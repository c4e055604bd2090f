package natslease

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// glanceLife is how long a glance waits for answers. Who has none by then has reached max_ack_pending, has no leader, or
// is with a server that is busy.
const glanceLife = 250 * time.Millisecond

var glanceRequest = []byte(`{"batch":1,"max_bytes":1,"no_wait":true}`)

// glance finds out which of many queues have tasks, in one round trip, and takes none: its pulls allow one byte, which
// every task exceeds, so that the server answers 409 where there is a task. Where there is none it answers 404 at once,
// from its own count; a pull with an expiry would wait for it, and get the same answer from a server that was too busy to
// look. The price is that at max_ack_pending there is no answer and the pull stays with the server: therefore a glance
// has an inbox of its own, without which its pulls are forgotten.
type glance struct {
	session *session
	feeds   []*feed
	sent    time.Time
	wake    func() // called when something was found, and when nothing is awaited any more

	id   uint64
	sub  *nats.Subscription
	life *time.Timer

	mu   sync.Mutex
	open []bool // by feed: its answer is awaited
	left int    // how many of them are true
}

// newGlance asks those queues that no other glance is asking; nil when there is none. It ends by itself.
func newGlance(s *session, candidates []*feed, wake func()) (*glance, error) {
	g := &glance{session: s, sent: time.Now(), wake: wake}
	s.wire.cork()
	defer s.wire.uncork()
	for _, f := range candidates {
		if f.beginLook(g) {
			g.feeds = append(g.feeds, f)
		}
	}
	if len(g.feeds) == 0 {
		return nil, nil
	}
	g.open, g.left = slices.Repeat([]bool{true}, len(g.feeds)), len(g.feeds)
	if err := g.ask(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *glance) ask() error {
	s := g.session
	inbox := s.hub.cfg.InboxPrefix + "." + randomID() + "."
	sub, err := s.nc.ChanSubscribe(inbox+"*", s.arrivals)
	if err != nil {
		return s.lostBefore()
	}
	id, err := s.register(g)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.id, g.sub = id, sub
	g.life = time.AfterFunc(glanceLife, g.close)
	g.mu.Unlock()
	s.mu.Lock()
	s.glances[sub] = g
	s.mu.Unlock()
	for i, f := range g.feeds {
		if err := s.publish(f.next(), inbox+strconv.Itoa(i), nil, glanceRequest); err != nil {
			return err
		}
	}
	return nil
}

// answered ends the waiting for one answer; false when it is not awaited.
func (g *glance) answered(i int) bool {
	g.mu.Lock()
	awaited := i >= 0 && i < len(g.open) && g.open[i]
	if awaited {
		g.open[i] = false
		g.left--
	}
	left := g.left
	g.mu.Unlock()
	switch {
	case !awaited:
	case left == 0:
		g.close()
	case left == len(g.feeds)/ebb:
		g.wake()
	}
	return awaited
}

// ebb says that a glance ebbs when one in so many answers is still awaited.
const ebb = 2

func (g *glance) ebbs() bool { return g.awaits() <= len(g.feeds)/ebb }

// awaits is how many answers are still awaited.
func (g *glance) awaits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left
}

// arrived is the answer of the queue that the last token of the subject names.
func (g *glance) arrived(m *nats.Msg) {
	i, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if err != nil || i < 0 || i >= len(g.feeds) {
		return
	}
	status := pullStatus{code: m.Header.Get("Status"), description: m.Header.Get("Description")}
	ready := status.says("Message Size Exceeds MaxBytes")
	g.feeds[i].endLook(g, ready, status, nil)
	if g.answered(i) && ready {
		g.wake()
	}
}

// close forgets what is still awaited, on both sides.
func (g *glance) close() {
	g.mu.Lock()
	open, id, sub := g.open, g.id, g.sub
	g.open, g.left, g.sub = nil, 0, nil
	if g.life != nil {
		g.life.Stop()
	}
	g.mu.Unlock()
	for i, awaited := range open {
		if awaited {
			g.feeds[i].endLook(g, false, pullStatus{}, nil)
		}
	}
	if sub != nil {
		s := g.session
		s.mu.Lock()
		delete(s.glances, sub)
		s.mu.Unlock()
		s.unregister(id)
		_ = sub.Unsubscribe() // the session may have ended
	}
	g.wake()
}

// silent tells whether what has no answer will have none, of asked queues in all. Where nobody has answered it may be the
// server that is slow.
func (g *glance) silent(now time.Time, asked int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	patience := 20*time.Millisecond + time.Duration(asked)*100*time.Microsecond
	if g.left == len(g.feeds) {
		patience *= 2
	}
	return g.left > 0 && now.Sub(g.sent) > patience
}

// reply has nothing to do: the answers come to the glance's own inbox.
func (g *glance) reply(int, *nats.Msg) {}

func (g *glance) denied(subject string, err *Error) bool {
	for i, f := range g.feeds {
		if strings.HasSuffix(subject, f.consumer) && subject == f.next() {
			f.endLook(g, false, pullStatus{}, err)
			g.answered(i)
			return true
		}
	}
	return false
}

func (g *glance) lost(*Error) { g.close() }
