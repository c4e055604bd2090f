package natslease

import (
	"sync/atomic"
	"time"
)

const (
	// beatSpacing is how long after each other the beats of a session come at most, while something is awaited.
	beatSpacing = 100 * time.Millisecond
	// longestBeat is the longest that the process can have gone on without one.
	longestBeat = 2 * beatSpacing
	// catchUp is for how long after a stop it may read what came meanwhile.
	catchUp = time.Second
)

// pulse knows when the process stood still: stopped by a signal, paused with its container, or without a processor. What
// it reads afterwards may have come at any time since, and a lease that the server has counted all the while must not
// begin now. Moments are offsets in the session's flight. Its writers hold the session's lock.
type pulse struct {
	alive   atomic.Int64
	stopped atomic.Int64 // the last sign of life before it last stood still
	resumed atomic.Int64
}

// beat is a sign of life.
func (p *pulse) beat(now int64) {
	before := p.alive.Load()
	if now-before > int64(longestBeat) {
		p.stopped.Store(before)
		p.resumed.Store(now)
	}
	p.alive.Store(now)
}

// begin is a sign of life after a time in which nothing was awaited, so that nothing can have come.
func (p *pulse) begin(now int64) { p.alive.Store(now) }

// arrival is when that which was read at a moment came at the earliest.
func (p *pulse) arrival(read int64) int64 {
	if alive := p.alive.Load(); read-alive > int64(longestBeat) {
		read = alive // and it has not been noticed yet
	}
	if resumed := p.resumed.Load(); resumed > 0 && read-resumed < int64(catchUp) {
		return min(read, p.stopped.Load())
	}
	return read
}
