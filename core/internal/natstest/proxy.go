package natstest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Direction is a way through a Proxy.
type Direction int

// The two ways through a Proxy.
const (
	FromClient Direction = iota
	FromServer
)

// Proxy stands between a client and a server and breaks their connections on command.
type Proxy struct {
	listener net.Listener
	target   string
	over     chan struct{} // closed when the proxy ends
	done     sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]struct{}
	total  int
	ways   [2]way
	closed bool
}

// way is what happens to the bytes of one direction, of all connections. It is guarded by Proxy.mu.
type way struct {
	gate   chan struct{} // nil when open; closed when it opens
	tick   time.Duration // > 0: one byte for each
	cutter *cutter
}

// cutter says when connections are cut: before the first appearance of pattern, or after left bytes.
type cutter struct {
	pattern []byte
	left    int
	cut     chan struct{}
}

// link is one client's connection with its counterpart.
type link struct{ ends [2]net.Conn } // by the direction that is read from it

// NewProxy listens on a free port and forwards to target (host:port). It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{listener: l, target: target, over: make(chan struct{}), links: make(map[*link]struct{})}
	p.done.Add(1)
	go p.accept()
	t.Cleanup(p.Close)
	return p
}

// Addr is host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is nats://host:port.
func (p *Proxy) URL() string { return "nats://" + p.Addr() }

// Connections is how many connections there are; Total how many there have been.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Total is how many connections there have been.
func (p *Proxy) Total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// Pause turns the network into a black hole: no byte passes in the directions given (both when none is), nothing is
// closed, and new connections go the same way.
func (p *Proxy) Pause(directions ...Direction) {
	p.each(directions, func(w *way) {
		if w.gate == nil {
			w.gate = make(chan struct{})
		}
	})
}

// Resume lets everything that was held back pass.
func (p *Proxy) Resume() {
	p.each(nil, func(w *way) {
		if w.gate != nil {
			close(w.gate)
			w.gate = nil
		}
	})
}

// Throttle lets one byte pass for each tick; 0 ends it.
func (p *Proxy) Throttle(tick time.Duration, directions ...Direction) {
	p.each(directions, func(w *way) { w.tick = tick })
}

// CutAfter cuts every connection once n more bytes have passed. The channel is closed when that has happened.
func (p *Proxy) CutAfter(d Direction, n int) <-chan struct{} {
	return p.setCutter(d, &cutter{left: n, cut: make(chan struct{})})
}

// CutBefore cuts every connection at the first appearance of pattern, which does not pass any more. The channel is
// closed when that has happened.
func (p *Proxy) CutBefore(d Direction, pattern string) <-chan struct{} {
	return p.setCutter(d, &cutter{pattern: []byte(pattern), cut: make(chan struct{})})
}

func (p *Proxy) setCutter(d Direction, c *cutter) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ways[d].cutter = c
	return c.cut
}

// Cut resets every connection (RST, not FIN).
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked()
}

func (p *Proxy) cutLocked() {
	for l := range p.links {
		for _, c := range l.ends {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.over)
	}
	p.cutLocked()
	p.mu.Unlock()
	p.done.Wait()
}

func (p *Proxy) each(directions []Direction, change func(*way)) {
	if len(directions) == 0 {
		directions = []Direction{FromClient, FromServer}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		change(&p.ways[d])
	}
}

func (p *Proxy) accept() {
	defer p.done.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close() // as a server that is down would
			continue
		}
		l := &link{ends: [2]net.Conn{FromClient: client, FromServer: server}}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_, _ = client.Close(), server.Close()
			return
		}
		p.links[l] = struct{}{}
		p.total++
		p.done.Add(1)
		p.mu.Unlock()
		go p.serve(l)
	}
}

// serve forwards both ways until one ends.
func (p *Proxy) serve(l *link) {
	defer p.done.Done()
	var pumps sync.WaitGroup
	for _, d := range []Direction{FromClient, FromServer} {
		pumps.Add(1)
		go func() {
			defer pumps.Done()
			p.pump(l, d)
			// One way's end is both ways' end: NATS has no half-closed connections.
			_, _ = l.ends[0].Close(), l.ends[1].Close()
		}()
	}
	pumps.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) pump(l *link, d Direction) {
	from, to := l.ends[d], l.ends[1-d]
	buf := make([]byte, 32<<10)
	var tail []byte // the end of what passed, for patterns that are spread over reads
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		chunk := buf[:n]
		for len(chunk) > 0 {
			tick, ok := p.admit(d)
			if !ok {
				return
			}
			part := chunk
			if tick > 0 {
				part = chunk[:1]
				if !p.wait(tick) {
					return
				}
			}
			passed, cut := p.inspect(d, tail, part)
			if passed > 0 {
				if _, err := to.Write(part[:passed]); err != nil {
					return
				}
			}
			if cut != nil {
				p.Cut()
				close(cut)
				return
			}
			tail = append(tail, part...)
			tail = tail[max(0, len(tail)-256):]
			chunk = chunk[len(part):]
		}
	}
}

// admit waits for an open gate.
func (p *Proxy) admit(d Direction) (time.Duration, bool) {
	for {
		p.mu.Lock()
		gate, tick := p.ways[d].gate, p.ways[d].tick
		p.mu.Unlock()
		if gate == nil {
			return tick, true
		}
		select {
		case <-gate:
		case <-p.over:
			return 0, false
		}
	}
}

func (p *Proxy) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.over:
		return false
	}
}

// inspect returns how much of part may pass, and the channel to close if that is where the connections are cut.
func (p *Proxy) inspect(d Direction, tail, part []byte) (int, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.ways[d].cutter
	if c == nil {
		return len(part), nil
	}
	if c.pattern == nil {
		if len(part) < c.left {
			c.left -= len(part)
			return len(part), nil
		}
		p.ways[d].cutter = nil
		return c.left, c.cut
	}
	overlap := tail[max(0, len(tail)-len(c.pattern)+1):]
	at := bytes.Index(append(bytes.Clone(overlap), part...), c.pattern)
	if at < 0 {
		return len(part), nil
	}
	p.ways[d].cutter = nil
	return max(0, at-len(overlap)), c.cut
}
