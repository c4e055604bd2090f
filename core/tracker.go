package natslease

import "context"

// Tracker is told what a client's calls take and settle, and says whether it may take anything. Its methods are called
// on the way of every call: they must not wait for anything, except Admit.
type Tracker interface {
	// Admit is asked before tasks are taken. Its error is the call's.
	Admit(ctx context.Context) error

	// Ended is closed when nothing is admitted any more. Calls that wait for tasks then end with the error of Admit,
	// and what they still take is given back.
	Ended() <-chan struct{}

	// Reserved is told of leases that a call returns. It must not keep them.
	Reserved(leases []*Lease)

	// Settled is told of leases that a call has settled, or tried to. It must not keep the slices.
	Settled(q *Queue, s Settlement, items []SettleItem, results []SettleResult)
}

// Track has a tracker told of the client's calls from now on, in place of the one before; nil ends that.
func (c *Client) Track(t Tracker) {
	if t == nil {
		c.tracker.Store(nil)
		return
	}
	c.tracker.Store(&t)
}

// Untrack ends the tracking by t, if it still is the client's tracker.
func (c *Client) Untrack(t Tracker) {
	if now := c.tracker.Load(); now != nil && *now == t {
		c.tracker.CompareAndSwap(now, nil)
	}
}

// admit asks the client's tracker, if there is one. What it returns must be called with what the call has taken.
func (c *Client) admit(ctx context.Context, operation string) (context.Context, func([]*Lease, error) error, error) {
	found := c.tracker.Load()
	if found == nil {
		return ctx, nil, nil
	}
	t := *found
	if err := t.Admit(ctx); err != nil {
		return ctx, nil, inOperation(operation, err, OutcomeNotSent)
	}
	watched, stop := ctx, func() {}
	// A call on a thread of its own is interrupted soon, and asks again.
	if _, ok := ctx.(*threadContext); !ok {
		var cancel context.CancelFunc
		watched, cancel = context.WithCancel(ctx)
		over := make(chan struct{})
		go func() { // ends with the call
			select {
			case <-t.Ended():
				cancel()
			case <-over:
			}
		}()
		stop = func() { close(over); cancel() }
	}
	return watched, func(leases []*Lease, err error) error {
		stop()
		select {
		case <-t.Ended():
		default:
			if len(leases) > 0 {
				t.Reserved(leases)
			}
			return err
		}
		c.hub.spawn(c.cfg.Timeout, func(ctx context.Context) { giveBack(ctx, leases) })
		if refused := t.Admit(ctx); refused != nil {
			return inOperation(operation, refused, OutcomeNotSent)
		}
		return err
	}, nil
}

// giveBack releases leases that no call returns.
func giveBack(ctx context.Context, leases []*Lease) {
	byQueue := make(map[*Queue][]SettleItem)
	for _, l := range leases {
		byQueue[l.queue] = append(byQueue[l.queue], SettleItem{AckSubject: l.AckSubject, Expires: l.Expires, Lease: l})
	}
	for q, items := range byQueue {
		_, _ = q.feed.settle(ctx, Settlement{Kind: Release}, items) // what cannot be given back comes back after ack_wait
	}
}
