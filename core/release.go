package natslease

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// release gives leases back so that being given back never wears a task out. A call that waits in this process gets it
// as it is; while deliveries remain it is NAKed; on the last one, where a NAK would make it dead, it is published anew
// and the old message acked. It returns the indices that are left to NAK.
func (f *feed) release(ctx context.Context, c *settleCall, todo []int) []int {
	if err := f.inquire(ctx); err != nil {
		c.failAll(todo, asOperation(c.operation, err).unsent())
		return nil
	}
	facts := f.known()
	var nak, last []int
	for _, i := range todo {
		ack, _ := ParseAckSubject(c.items[i].AckSubject) // admit has parsed it
		switch {
		case f.handOn(c.items[i].Lease, facts.ackWait):
			c.results[i].Status = Settled
		case facts.maxDeliver > 0 && ack.Delivered >= uint64(facts.maxDeliver):
			last = append(last, i)
		default:
			nak = append(nak, i)
		}
	}
	if len(last) > 0 {
		f.republish(ctx, c, last)
	}
	return nak
}

// handOn gives a lease with enough time left to a call that waits for this consumer in this process.
func (f *feed) handOn(l *Lease, ackWait time.Duration) bool {
	if l == nil || l.Data == nil && l.Subject == "" || time.Until(l.Expires) < ackWait/2 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	again := *l // the giver's lease object stays settled; the taker's is another
	return f.hand(&again)
}

// republish makes new messages of tasks on their last delivery, then acks the old ones.
func (f *feed) republish(ctx context.Context, c *settleCall, todo []int) {
	var messages []outgoing
	var sources []int
	for _, i := range todo {
		m, err := f.original(ctx, &c.items[i])
		if err != nil {
			c.failAll([]int{i}, err)
			continue
		}
		messages = append(messages, *m)
		sources = append(sources, i)
	}
	var stored []int
	for k, r := range f.hub.publish(ctx, f.stream, defaultDuplicateWindow, messages) {
		if r.Err != nil {
			c.failAll([]int{sources[k]}, r.Err)
			continue
		}
		stored = append(stored, sources[k])
	}
	acks := &settleCall{operation: c.operation, payload: []byte("+ACK"), items: c.items, results: c.results, repeatable: true}
	f.confirm(ctx, acks, stored)
}

// original is the message to publish in place of a lease's.
func (f *feed) original(ctx context.Context, item *SettleItem) (*outgoing, error) {
	l := item.Lease
	if l == nil || l.Subject == "" {
		var err error
		if l, err = f.fetch(ctx, item.AckSubject); err != nil {
			return nil, err
		}
	}
	header := make(nats.Header, len(l.Header)+2)
	for name, values := range l.Header {
		header[name] = slices.Clone(values)
	}
	if l.ID != "" {
		header[headerOriginalID] = []string{l.ID}
	}
	releases, _ := strconv.Atoi(l.first(headerReleases))
	header[headerReleases] = []string{strconv.Itoa(releases + 1)}
	// A fresh id: the server would take the old one for a duplicate and store nothing.
	header[headerMessageID] = []string{randomID()}
	return &outgoing{subject: l.Subject, header: header, data: l.Data}, nil
}

// fetch reads a lease's message from the stream, for a lease that is known by its ack subject only.
func (f *feed) fetch(ctx context.Context, ackSubject string) (*Lease, error) {
	ack, err := ParseAckSubject(ackSubject)
	if err != nil {
		return nil, err
	}
	found, failure, err := f.hub.stored(ctx, f.stream, storedAt{Seq: ack.StreamSeq})
	if err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure.asError()
	}
	m := &nats.Msg{Subject: found.Subject, Reply: ackSubject, Data: found.Data, Header: found.header}
	return newLease(m, ack, time.Now()), nil
}
