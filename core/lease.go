package natslease

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// Header is a message's headers.
type Header map[string][]string

const (
	headerMessageID = "Nats-Msg-Id"
	// headerOriginalID keeps a task's id when releasing it made a new message of it.
	headerOriginalID = "Natslease-Id"
	// headerReleases counts how often that was done.
	headerReleases = "Natslease-Releases"
)

// Lease is one delivery of one task to one taker. Until Expires the task is nobody else's.
type Lease struct {
	AckSubject  string
	Subject     string // the stream's subject that the task was published to
	Data        []byte
	Header      Header    // nil when the message has none
	ID          string    // the publisher's id, "" when it gave none
	Attempt     int       // 1 for the first delivery
	Seq         uint64    // in the stream
	ConsumerSeq uint64    // of this delivery
	Pending     uint64    // tasks behind this one when it was delivered
	Published   time.Time // by the server's clock
	Expires     time.Time // by this process's clock, from the consumer's actual ack_wait: a little before the server's

	queue    *Queue    // whose Reserve returned it
	received time.Time // at the earliest
}

func newLease(m *nats.Msg, ack AckSubject, received time.Time) *Lease {
	l := &Lease{
		AckSubject:  m.Reply,
		Subject:     m.Subject,
		Data:        m.Data,
		Attempt:     int(ack.Delivered),
		Seq:         ack.StreamSeq,
		ConsumerSeq: ack.ConsumerSeq,
		Pending:     ack.Pending,
		Published:   ack.Published,
		received:    received,
	}
	if len(m.Header) > 0 {
		l.Header = Header(m.Header)
		l.ID = l.first(headerOriginalID)
		if l.ID == "" {
			l.ID = l.first(headerMessageID)
		}
	}
	return l
}

func (l *Lease) first(name string) string {
	if values := l.Header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Ack settles the lease as done, and returns once the server has said so.
func (l *Lease) Ack(ctx context.Context) error {
	return l.settle(ctx, Settlement{Kind: Ack})
}

// Nak gives the task back because it failed; the server offers it again after delay.
func (l *Lease) Nak(ctx context.Context, delay time.Duration) error {
	return l.settle(ctx, Settlement{Kind: Nak, Delay: delay})
}

// Release gives the task back because it was not started; see Queue.Settle.
func (l *Lease) Release(ctx context.Context) error {
	return l.settle(ctx, Settlement{Kind: Release})
}

// Extend starts the lease's time anew and moves Expires.
func (l *Lease) Extend(ctx context.Context) error {
	return l.settle(ctx, Settlement{Kind: Extend})
}

// Keep extends the lease again and again, until it is settled or maxHold is over.
func (l *Lease) Keep(maxHold time.Duration) error {
	return l.queue.KeepItem(SettleItem{AckSubject: l.AckSubject, Expires: l.Expires}, maxHold)
}

// Term settles the lease as failed for good: the task is not offered again.
func (l *Lease) Term(ctx context.Context, reason string) error {
	return l.settle(ctx, Settlement{Kind: Term, Reason: reason})
}

func (l *Lease) settle(ctx context.Context, s Settlement) error {
	results, err := l.queue.Settle(ctx, s, []SettleItem{{AckSubject: l.AckSubject, Expires: l.Expires, Lease: l}})
	if err != nil {
		return err
	}
	if results[0].Err != nil {
		return results[0].Err
	}
	if s.Kind == Extend {
		l.Expires = results[0].Expires
	}
	return nil
}

// Queue is where the lease is from.
func (l *Lease) Queue() *Queue { return l.queue }
