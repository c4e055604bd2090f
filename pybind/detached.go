package pybind

import (
	"context"
	"sync"
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
