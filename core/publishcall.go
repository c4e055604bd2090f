package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// publishCall is one call of publish: rounds of sending until every message has a result.
type publishCall struct {
	messages []outgoing
	results  []PublishResult
	maybe    []bool // by message: an earlier try may have been stored
}

// publish sends messages to the stream and collects a result for each. remembers is for how long the stream remembers
// their ids where it may not be asked.
func (h *hub) publish(ctx context.Context, stream string, remembers time.Duration, messages []outgoing) []PublishResult {
	c := &publishCall{messages: messages, results: make([]PublishResult, len(messages)), maybe: make([]bool, len(messages))}
	todo := make([]int, 0, len(messages))
	for i := range messages {
		if messages[i].invalid != nil {
			c.results[i].Err = messages[i].invalid
			continue
		}
		todo = append(todo, i)
	}
	started := time.Now()
	asked := false
	var wait backoff
	for attempt := 0; len(todo) > 0; attempt++ {
		s, err := h.session(ctx)
		if err != nil {
			c.fail(todo, asOperation("", err), false)
			break
		}
		r := c.newRound(s, todo)
		r.run(ctx)
		todo = r.again
		if len(todo) == 0 {
			break
		}
		if (r.pause || attempt > 0) && !sleep(ctx, wait.delay()) || ctx.Err() != nil {
			c.interrupt(ctx, todo)
			break
		}
		needed := !asked && slices.ContainsFunc(todo, c.mayBeStored)
		if r.unheard || needed {
			var window time.Duration
			ask := func(ctx context.Context) (err error) {
				window, err = h.streamTakes(ctx, stream, messages[todo[0]].subject)
				return err
			}
			if needed {
				err = ask(ctx)
			} else {
				err = soon(ctx, attempt, ask)
			}
			switch {
			case CodeOf(err) == CodeConnectionLost: // the next round has a session of its own
			case err != nil:
				e := asOperation("", err).unsent() // it is the question's outcome
				c.fail(todo, e, e.Code == CodeQueueNotFound)
				return c.results
			case window > 0:
				asked, remembers = true, window
			}
		}
		if time.Since(started) > remembers*3/4 {
			todo = slices.DeleteFunc(todo, c.mayBeStored) // their errors stand
		}
	}
	return c.results
}

// streamTakes returns nil when the stream is there and takes the subject, or cannot be asked about; and for how long it
// remembers ids, or 0.
func (h *hub) streamTakes(ctx context.Context, stream, subject string) (time.Duration, error) {
	var info streamInfo
	failure, err := h.api(ctx, "STREAM.INFO."+stream, nil, &info)
	switch {
	case CodeOf(err) == CodePermissionDenied:
		return 0, nil
	case err != nil:
		return 0, err
	case failure != nil:
		return 0, failure.asError()
	}
	var config streamConfig
	if json.Unmarshal(info.Config, &config) != nil {
		return 0, nil
	}
	if !covered(config.Subjects, strings.TrimPrefix(subject, h.cfg.apiPrefix())) {
		return 0, newError(CodeQueueNotFound, OutcomeRejected, "the stream %s does not take the subject %s: call Ensure", stream, subject)
	}
	return config.Duplicates, nil
}

func (c *publishCall) mayBeStored(i int) bool { return c.maybe[i] }

// record notes why message i is not known to be stored. What an earlier try may have done stays possible, unless the
// stream itself, which would have known the id again, is certain.
func (c *publishCall) record(i int, err *Error, certain bool) {
	if err.Outcome == OutcomeUnknown {
		c.maybe[i] = true
	} else if c.maybe[i] && !certain {
		e := *err
		e.Outcome = OutcomeUnknown
		err = &e
	}
	c.results[i] = PublishResult{Err: err}
}

func (c *publishCall) fail(todo []int, err *Error, certain bool) {
	for _, i := range todo {
		c.record(i, err, certain)
	}
}

// interrupt ends the call in a pause between two rounds.
func (c *publishCall) interrupt(ctx context.Context, todo []int) {
	for _, i := range todo {
		c.record(i, interrupted(ctx, c.results[i].Err), false)
	}
}
