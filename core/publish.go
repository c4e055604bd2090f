package natslease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// publishWindow is how many messages of one call are in flight. The server drops what exceeds its own queue of
	// 10,000 messages a stream.
	publishWindow = 4096
	// retryWindow is how long a message may be sent again under its id: the server remembers ids for two minutes by default.
	retryWindow = 90 * time.Second
)

// Message is a task to publish.
type Message struct {
	Data []byte
	// ID names the task. The server stores a message of the same id only once within the stream's duplicate window. An
	// id is made where there is none.
	ID     string
	Header Header
}

// PublishResult is what became of one message.
type PublishResult struct {
	ID        string // the id it was sent with
	Seq       uint64 // its sequence in the stream; of the earlier message when it is a duplicate
	Duplicate bool   // the server already had a message of this id
	Err       *Error // nil: accepted by the server, or already there
}

// PublishReport has a result for every message, in their order.
type PublishReport struct {
	Results []PublishResult
}

// Accepted counts what is newly stored.
func (r PublishReport) Accepted() int {
	return r.count(func(p *PublishResult) bool { return p.Err == nil && !p.Duplicate })
}

// Duplicates counts what the server already had.
func (r PublishReport) Duplicates() int {
	return r.count(func(p *PublishResult) bool { return p.Err == nil && p.Duplicate })
}

// Failed counts what failed.
func (r PublishReport) Failed() int {
	return r.count(func(p *PublishResult) bool { return p.Err != nil })
}

func (r PublishReport) count(is func(*PublishResult) bool) int {
	n := 0
	for i := range r.Results {
		if is(&r.Results[i]) {
			n++
		}
	}
	return n
}

// Publish puts tasks into the queue and waits for the server's word on each. The error is for a call that could not be
// made at all. What a lost session leaves unanswered is sent again once, under the same id, so that it cannot be
// enqueued twice.
func (q *Queue) Publish(ctx context.Context, messages []Message) (PublishReport, error) {
	const operation = "publish"
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return PublishReport{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	batch := randomID()
	out := make([]outgoing, len(messages))
	for i := range messages {
		out[i] = q.outgoing(&messages[i], batch, i)
	}
	results := q.hub.publish(ctx, q.cfg.Stream, out)
	for i := range results {
		results[i].ID = out[i].header[headerMessageID][0]
		if results[i].Err != nil {
			results[i].Err = asOperation(operation, results[i].Err)
		}
	}
	return PublishReport{Results: results}, nil
}

// outgoing is one message as it is sent; invalid is set when it must not be.
type outgoing struct {
	subject string
	header  nats.Header
	data    []byte
	invalid *Error
}

func (q *Queue) outgoing(m *Message, batch string, i int) outgoing {
	out := outgoing{subject: q.cfg.Subject, data: m.Data}
	id := m.ID
	if id == "" {
		id = batch + "." + strconv.Itoa(i)
	} else if strings.IndexFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		out.invalid = configError("message %d: the id has control characters", i)
	}
	out.header = make(nats.Header, 1+len(m.Header))
	for name, values := range m.Header {
		if err := validHeader(name, values); err != nil {
			out.invalid = configError("message %d: %s", i, err)
		}
		out.header[name] = values
	}
	out.header[headerMessageID] = []string{id}
	return out
}

func validHeader(name string, values []string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return errors.New("a header has no name")
	case strings.HasPrefix(lower, "nats-"), strings.HasPrefix(lower, "natslease-"):
		return fmt.Errorf("the header %.64q is reserved", name)
	case strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) >= 0:
		return fmt.Errorf("the header name %.64q has characters that a name cannot have", name)
	}
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n\x00") {
			return fmt.Errorf("the value of header %.64q has a line break or a NUL", name)
		}
	}
	return nil
}

// publish sends messages to the stream and collects a result for each.
func (h *hub) publish(ctx context.Context, stream string, messages []outgoing) []PublishResult {
	c := &publishCall{messages: messages, results: make([]PublishResult, len(messages)), answered: make([]bool, len(messages))}
	todo := make([]int, 0, len(messages))
	for i := range messages {
		if messages[i].invalid != nil {
			c.results[i].Err = messages[i].invalid
			continue
		}
		todo = append(todo, i)
	}
	started := time.Now()
	var wait backoff
	for len(todo) > 0 {
		s, err := h.session(ctx)
		if err != nil {
			c.failAll(todo, asOperation("", err))
			break
		}
		c.send(ctx, s, todo)
		todo = c.takeAgain()
		if len(todo) == 0 {
			break
		}
		if time.Since(started) > retryWindow || ctx.Err() != nil {
			break // their errors stand
		}
		if c.unheard {
			if err := h.streamTakes(ctx, stream, messages[todo[0]].subject); err != nil {
				c.failAll(todo, asOperation("", err))
				break
			}
		}
		if c.pause && !sleep(ctx, wait.delay()) {
			break
		}
	}
	return c.results
}

// streamTakes returns nil when the stream is there and takes the subject, or cannot be asked about.
func (h *hub) streamTakes(ctx context.Context, stream, subject string) error {
	var info streamInfo
	failure, err := h.api(ctx, "STREAM.INFO."+stream, nil, &info)
	switch {
	case CodeOf(err) == CodePermissionDenied:
		return nil
	case err != nil:
		return err
	case failure != nil:
		return failure.asError()
	}
	var config streamConfig
	if json.Unmarshal(info.Config, &config) == nil && !covered(config.Subjects, subject) {
		return newError(CodeQueueNotFound, OutcomeRejected, "the stream %s does not take the subject %s: call Ensure", stream, subject)
	}
	return nil
}

// publishCall is one call of publish. What the session's dispatcher writes is guarded by mu.
type publishCall struct {
	messages []outgoing
	results  []PublishResult

	mu       sync.Mutex
	answered []bool
	left     int   // answers that this round still awaits
	sent     []int // of this round, in order
	again    []int // to be sent again
	unheard  bool  // nobody listened
	pause    bool  // the server asked for time
	dead     *Error
	session  *session
	window   chan struct{}
	finished chan struct{}
}

// send is one round: it sends what is to be sent, never more than the window ahead of the answers, and waits for them.
func (c *publishCall) send(ctx context.Context, s *session, todo []int) {
	c.mu.Lock()
	c.session = s
	c.left, c.unheard, c.pause, c.dead = len(todo), false, false, nil
	c.sent = make([]int, 0, len(todo))
	c.window = make(chan struct{}, publishWindow)
	c.finished = make(chan struct{})
	c.mu.Unlock()
	id, err := s.register(c)
	if err != nil {
		c.failAll(todo, asOperation("", err))
		return
	}
	defer s.unregister(id)
	for k, i := range todo {
		if !c.room(ctx, s, i) {
			c.stop(ctx, s, todo[k:])
			return
		}
		c.mu.Lock()
		c.sent = append(c.sent, i)
		c.mu.Unlock()
		m := &c.messages[i]
		if err := s.publish(m.subject, s.subject(id, i), m.header, m.data); err != nil {
			if CodeOf(err) == CodeConnectionLost {
				c.retry(i, asOperation("", err), false)
				continue
			}
			c.conclude(i, PublishResult{Err: asOperation("", err)})
		}
	}
	select {
	case <-c.finished:
	case <-ctx.Done():
		c.stop(ctx, s, nil)
	}
}

// room waits until message i fits into the call's window and the session's budget; false when the call has to stop.
func (c *publishCall) room(ctx context.Context, s *session, i int) bool {
	select {
	case c.window <- struct{}{}:
	default:
		select {
		case c.window <- struct{}{}:
		case <-c.finished: // the session was lost
			return false
		case <-ctx.Done():
			return false
		}
	}
	if !s.budget.TryAcquire(c.cost(i)) && s.budget.Acquire(ctx, c.cost(i)) != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		s.budget.Release(c.cost(i))
		return false
	}
	return true
}

// cost is what message i takes of the session's budget; one that is larger than all of it takes all.
func (c *publishCall) cost(i int) int64 { return min(int64(len(c.messages[i].data))+512, unsentBudget) }

// conclude ends the waiting for one message that was sent.
func (c *publishCall) conclude(i int, r PublishResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil || c.answered[i] {
		return
	}
	c.answered[i] = true
	c.results[i] = r
	c.release(i)
}

// release takes message i out of flight; c.mu is held.
func (c *publishCall) release(i int) {
	<-c.window
	c.session.budget.Release(c.cost(i))
	c.left--
	if c.left == 0 {
		close(c.finished)
	}
}

// stop ends a round before its end: what was sent has an unknown outcome, the rest was not sent.
func (c *publishCall) stop(ctx context.Context, s *session, unsent []int) {
	c.mu.Lock()
	dead := c.dead
	c.mu.Unlock()
	if dead == nil {
		dead = s.overdue(ctx)
		c.end(dead, false)
	}
	notSent := *dead
	notSent.Outcome = OutcomeNotSent
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range unsent {
		c.results[i].Err = &notSent
		if ctx.Err() == nil {
			c.again = append(c.again, i)
		}
	}
}

// end gives what is unanswered an error, and notes it for another round when that makes sense.
func (c *publishCall) end(err *Error, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil || c.left == 0 {
		return
	}
	c.dead = err
	for _, i := range c.sent {
		if c.answered[i] {
			continue
		}
		c.results[i].Err = err
		if again {
			c.again = append(c.again, i)
		}
		c.session.budget.Release(c.cost(i))
	}
	close(c.finished)
}

func (c *publishCall) lost(err *Error) { c.end(err, err.Code == CodeConnectionLost) }

func (c *publishCall) denied(subject string, err *Error) bool {
	c.mu.Lock()
	var matched []int
	for _, i := range c.sent {
		if !c.answered[i] && c.messages[i].subject == subject {
			matched = append(matched, i)
		}
	}
	c.mu.Unlock()
	for _, i := range matched {
		c.conclude(i, PublishResult{Err: err})
	}
	return len(matched) > 0
}

func (c *publishCall) reply(slot int, m *nats.Msg) {
	if slot < 0 || slot >= len(c.results) {
		return
	}
	if isNoResponders(m) {
		c.retry(slot, newError(CodeQueueUnavailable, OutcomeNotSent, "nobody took the message: the queue has no leader"), true)
		return
	}
	r, transient := readPubAck(m.Data)
	if transient {
		c.retry(slot, r.Err, false)
		return
	}
	c.conclude(slot, r)
}

// retry takes a message out of this round and into the next.
func (c *publishCall) retry(i int, err *Error, unheard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil || c.answered[i] {
		return
	}
	c.results[i].Err = err
	c.unheard = c.unheard || unheard
	c.pause = true
	c.again = append(c.again, i)
	c.release(i)
}

func (c *publishCall) takeAgain() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.again
	c.again = nil
	return again
}

func (c *publishCall) failAll(todo []int, err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range todo {
		// What was sent before may have happened, whatever became of the next try.
		if before := c.results[i].Err; before != nil && before.Outcome == OutcomeUnknown && err.Outcome == OutcomeNotSent {
			unknown := *err
			unknown.Outcome = OutcomeUnknown
			c.results[i].Err = &unknown
			continue
		}
		c.results[i].Err = err
	}
}

// readPubAck reads the server's answer to a publish. The second result tells whether it may be sent again.
func readPubAck(data []byte) (PublishResult, bool) {
	if seq, ok := scanPubAck(data); ok {
		return PublishResult{Seq: seq}, false
	}
	var ack struct {
		Seq       uint64    `json:"seq"`
		Duplicate bool      `json:"duplicate"`
		Error     *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return PublishResult{Err: newError(CodeServer, OutcomeUnknown, "the server's answer could not be read: %s", err)}, false
	}
	if ack.Error != nil {
		return PublishResult{Err: ack.Error.asError()}, ack.Error.transient() || ack.Error.Code == 429
	}
	return PublishResult{Seq: ack.Seq, Duplicate: ack.Duplicate}, false
}

// scanPubAck reads the answer in the one form that the server writes for a message that is newly stored, `{"stream":"S", "seq":1}`; anything
// else is left to the JSON decoder.
func scanPubAck(data []byte) (seq uint64, ok bool) {
	if bytes.Contains(data, []byte(`"error"`)) {
		return 0, false
	}
	at := bytes.LastIndex(data, []byte(`"seq":`))
	if at < 0 {
		return 0, false
	}
	rest := data[at+len(`"seq":`):]
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		seq = seq*10 + uint64(rest[n]-'0')
		n++
	}
	if n == 0 || n > 19 || n == len(rest) {
		return 0, false
	}
	if rest[n] == '}' && n+1 == len(rest) {
		return seq, true
	}
	return 0, false
}
