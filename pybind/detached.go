package pybind

import (
	"context"
	"sync"
	"time"
)

// detached counts what goes on although nobody waits for it: tasks that are given back. A client is closed after that,
// or they would be lost until ack_wait.
var detached counter

type counter struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n is 0 again; nil while nobody waits
}

func (c *counter) begin() {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
}

func (c *counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if c.n == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// wait returns when nothing goes on, or the context ends.
func (c *counter) wait(ctx context.Context) {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// leaving counts what GiveBack has begun.
var leaving counter

// GiveBack begins to give back what came too late for its call and would wait for the next. It returns how many clients
// there are.
func GiveBack() (n int64) {
	defer func() { _ = recover() }()
	for _, c := range clients.all() {
		n++
		leaving.begin()
		go func() {
			defer leaving.end()
			ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
			defer cancel()
			c.AwaitLate(ctx)
			// What is given back may go to a call that gives up, too.
			detached.wait(ctx)
			for c.GiveBackLate(ctx) > 0 && ctx.Err() == nil {
				detached.wait(ctx)
			}
		}()
	}
	return n
}

// AwaitDetached waits for up to slice nanoseconds for what is being given back; it returns 1 when nothing is left.
func AwaitDetached(slice int64) (idle int64) {
	defer func() { _ = recover() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(slice))
	defer cancel()
	leaving.wait(ctx)
	detached.wait(ctx)
	if ctx.Err() != nil {
		return 0
	}
	return 1
}
