package natslease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
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
// made at all. What a lost session leaves unanswered is sent again under the same id while the stream remembers that, so
// that it cannot be enqueued twice.
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
	results := q.hub.publish(ctx, q.cfg.Stream, q.cfg.DuplicateWindow, out)
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
	case lower == "nats-expected-stream": // refuses the message elsewhere, and has no other effect
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
