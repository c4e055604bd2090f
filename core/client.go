package natslease

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// Client is the way to the queues of one NATS system. It is safe for concurrent use. The clients of a process that have
// equal options share one connection, which the first call opens.
type Client struct{ *client }

// client is apart from Client so that two pointers lie between what fmt is given and the options: for a verb that it
// finds wrong, fmt follows the first one, past every String and Format method.
type client struct {
	cfg    *Config
	hub    *hub
	closed atomic.Bool

	tracker atomic.Pointer[Tracker] // points to nil, or to one that is not
}

// New checks the options, all at once, and does no I/O.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{&client{cfg: &cfg, hub: joinHub(&cfg)}}, nil
}

// Queue names a queue; it checks the options and does no I/O.
func (c *Client) Queue(cfg QueueConfig) (*Queue, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return newQueue(c, cfg), nil
}

// Logger is where what happens is told, for packages that build on this one.
func (c *Client) Logger() *slog.Logger { return c.hub.log }

// Timeout is the time of a call whose context has no deadline.
func (c *Client) Timeout() time.Duration { return c.cfg.Timeout }

// Ping asks the server for a sign of life and returns the time that it took.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	ctx, cancel, err := c.begin(ctx, c.hub.calling)
	if err != nil {
		return 0, inOperation("ping", err, OutcomeNotSent)
	}
	defer cancel()
	s, err := c.hub.session(ctx)
	if err != nil {
		return 0, inOperation("ping", err, OutcomeNotSent)
	}
	started := time.Now()
	if err := s.ping(ctx); err != nil {
		return 0, inOperation("ping", err, OutcomeUnknown)
	}
	return time.Since(started), nil
}

// Close detaches the client. Its calls fail from then on; the last client of the shared connection closes it, after
// giving back tasks that nobody took.
func (c *Client) Close(ctx context.Context) error {
	if c.closed.Swap(true) {
		return nil
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	return c.hub.leave(ctx)
}

// onTheirWay is how long tasks are waited for that a pull without a call may still bring.
const onTheirWay = 50 * time.Millisecond

// AwaitLate waits for tasks that calls have asked for before they gave up. What a server brings that takes longer than
// its other answers is not waited for.
func (c *Client) AwaitLate(ctx context.Context) {
	if !slices.ContainsFunc(c.hub.allFeeds(), (*feed).isPulledByNobody) {
		return
	}
	_, _ = c.Ping(ctx) // the server has read what it was asked; from one that does not answer nothing comes
	select {
	case <-time.After(onTheirWay):
	case <-ctx.Done():
	}
}

// GiveBackLate returns the tasks to their queues that came after their calls had given up, and says how many there were.
// They are held for the next reserve otherwise: a process that is about to end would take them with it.
func (c *Client) GiveBackLate(ctx context.Context) int {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	n := 0
	for _, f := range c.hub.allFeeds() {
		if late := f.takeAllLate(); len(late) > 0 {
			n += len(late)
			f.giveBack(ctx, late)
		}
	}
	return n
}

// begin gives a call its deadline and its place among the calls in flight; what it returns gives both back.
func (c *Client) begin(ctx context.Context, in *bounds) (context.Context, func(), error) {
	if c.closed.Load() {
		return nil, nil, newError(CodeClientClosed, OutcomeNotSent, "the client was closed: open another")
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, inOperation("", err, OutcomeNotSent)
	}
	ctx, cancel := c.withTimeout(ctx)
	if err := in.enter(ctx); err != nil {
		cancel()
		return nil, nil, err
	}
	return ctx, func() {
		in.leave()
		cancel()
	}, nil
}

func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.cfg.Timeout)
}
