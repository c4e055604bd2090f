package natslease

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// AnyReport is what ReserveAny brought.
type AnyReport struct {
	Leases     []*Lease
	Missing    []*Queue          // their stream or consumer does not exist
	Errors     map[*Queue]*Error // what else is wrong with queues; nil when nothing is
	RetryAfter time.Duration     // when to ask again after no lease; 0 when there is one
}

// ReserveAny takes up to n tasks from any of the queues, waiting up to wait for the first; what is there at that moment
// is returned at once. Queues that are known to have tasks share what is asked, those that were served longest ago
// first; the others are looked at in turn. What is wrong with some queues is in the report and does not fail the call.
// No lease and no error means that the queues which are not in the report's Missing and Errors were empty, truthfully; of
// a replicated queue the consumer's leader is believed, which can be some milliseconds behind the stream's.
func (c *Client) ReserveAny(ctx context.Context, queues []*Queue, n int, wait time.Duration) (AnyReport, error) {
	const operation = "reserve_any"
	started := time.Now()
	feeds, err := c.distinct(queues)
	if err != nil {
		return AnyReport{}, inOperation(operation, err, OutcomeRejected)
	}
	ctx, cancel, err := c.beginReserve(ctx, n, wait)
	if err != nil {
		return AnyReport{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	ctx, conclude, err := c.admit(ctx, operation)
	if err != nil {
		return AnyReport{}, err
	}
	call := newAnyCall(c.hub, feeds, n, started, started.Add(wait))
	err = call.run(ctx)
	if len(call.taken) > 0 {
		call.own(ctx)
		err = nil
	}
	if conclude != nil {
		if err = conclude(call.taken, err); err != nil {
			call.taken = nil
		}
	}
	report := call.report()
	if err != nil {
		return report, inOperation(operation, err, OutcomeUnknown)
	}
	if len(report.Leases) == 0 && len(report.Missing)+len(report.Errors) == len(feeds) {
		return report, inOperation(operation, call.everyQueueFailed(report), OutcomeRejected)
	}
	return report, nil
}

// distinct checks the queues of a call, and leaves out those that are there more than once.
func (c *Client) distinct(queues []*Queue) ([]*Queue, error) {
	if len(queues) == 0 {
		return nil, configError("queues is empty: name at least one")
	}
	known := make(map[*feed]bool, len(queues))
	distinct := make([]*Queue, 0, len(queues))
	for i, q := range queues {
		switch {
		case q == nil:
			return nil, configError("queues[%d] is nil", i)
		case q.hub != c.hub:
			return nil, configError("queues[%d] (%s) is of a client with other options", i, q.cfg.Stream)
		case !known[q.feed]:
			known[q.feed] = true
			distinct = append(distinct, q)
		}
	}
	return distinct, nil
}

// own sets the clocks of the leases. What is not known of their consumers is asked of several at a time.
func (c *anyCall) own(ctx context.Context) {
	var asking errgroup.Group
	asking.SetLimit(anyQuestions)
	for i := range c.all {
		q := &c.all[i]
		if len(q.got) > 0 && q.feed.known().learned.IsZero() {
			asking.Go(func() error {
				_ = q.feed.inquire(ctx) // the leases are there
				return nil
			})
		}
	}
	_ = asking.Wait() // inquire reports nothing: without an answer the queue's option has to do
	for i := range c.all {
		if q := &c.all[i]; len(q.got) > 0 {
			q.own(q.got)
		}
	}
}

func (c *anyCall) report() AnyReport {
	r := AnyReport{Leases: c.taken}
	for i := range c.all {
		q := &c.all[i]
		switch {
		case q.failure == nil || len(q.got) > 0:
		case q.failure.Code == CodeQueueNotFound:
			r.Missing = append(r.Missing, q.Queue)
		default:
			if r.Errors == nil {
				r.Errors = make(map[*Queue]*Error)
			}
			r.Errors[q.Queue] = asOperation("reserve_any", q.failure)
		}
	}
	if len(r.Leases) == 0 {
		r.RetryAfter = jittered(c.interval)
	}
	return r
}

// everyQueueFailed is the error of a call that no queue could serve. One that passes outranks one that does not.
func (c *anyCall) everyQueueFailed(r AnyReport) *Error {
	var first *Error
	for i := range c.all {
		if e := c.all[i].failure; first == nil || e.RetryAfter > 0 && first.RetryAfter == 0 {
			first = e
		}
	}
	e := *first
	if len(c.all) > 1 {
		e.Message = fmt.Sprintf("none of %d queues can be taken from (%d do not exist): %s", len(c.all), len(r.Missing), e.Message)
	}
	return &e
}
