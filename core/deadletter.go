package natslease

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// DeadLetter is a task that has failed on its last attempt.
//
// Stream, Consumer, Seq and Published are which one it is; the rest is only told.
type DeadLetter struct {
	Stream    string
	Consumer  string
	Seq       uint64    // in Stream
	Published time.Time // to Stream

	Subject  string // that it was published to
	ID       string // the publisher's id, "" when it gave none
	Data     []byte
	Header   Header // the task's own; nil when it has none
	Attempts int
	Reason   string    // what the last Nak said, or that the last taker never settled it
	Worker   string    // the connection's name of the last taker; "" when that never settled it
	Died     time.Time // when it was given up
}

// The headers of a copy in the dead-letter stream. The task's own stand beside them.
const (
	headerDeadAttempts = "Natslease-Dead-Attempts"
	headerDeadConsumer = "Natslease-Dead-Consumer"
	headerDeadReason   = "Natslease-Dead-Reason"
	headerDeadSeq      = "Natslease-Dead-Seq"
	headerDeadStream   = "Natslease-Dead-Stream"
	headerDeadSubject  = "Natslease-Dead-Subject"
	headerDeadTime     = "Natslease-Dead-Time"
	headerDeadTold     = "Natslease-Dead-Published"
	headerDeadWorker   = "Natslease-Dead-Worker"
	// headerRequeued marks a letter that was requeued, in a stream of which the original cannot be removed because other
	// consumers may read it.
	headerRequeued = "Natslease-Dead-Requeued"

	maxReason      = 1_000 // bytes
	reasonUnsaid   = "it was NAKed without a reason"
	reasonUnsettle = "its last lease ran out"
)

// key tells letters apart: a stream that is deleted and made anew counts from 1 again, at another time.
func (l *DeadLetter) key() string {
	return fmt.Sprintf("%s.%s.%d.%d", l.Stream, l.Consumer, l.Seq, l.Published.UnixNano())
}

// bury takes the leases on their last attempt out of those to NAK: a NAK would make their tasks unreachable. They are
// copied to the dead-letter stream and then TERMed; a crash between the two leaves a task that is a letter twice, which
// reading merges. What cannot be copied is NAKed all the same: the server's advisory tells of it.
func (f *feed) bury(ctx context.Context, c *settleCall, s Settlement, todo []int) []int {
	if err := f.inquire(ctx); err != nil {
		c.failAll(todo, asOperation(c.operation, err).unsent())
		return nil
	}
	maxDeliver := f.known().maxDeliver
	var nak, last []int
	var copies []outgoing
	for _, i := range todo {
		ack, _ := ParseAckSubject(c.items[i].AckSubject) // admit has parsed it
		if maxDeliver <= 0 || ack.Delivered < uint64(maxDeliver) {
			nak = append(nak, i)
			continue
		}
		l := c.items[i].Lease
		if l == nil || l.Subject == "" {
			var err error
			if l, err = f.fetch(ctx, c.items[i].AckSubject); err != nil {
				f.notBuried(ack, err)
				nak = append(nak, i)
				continue
			}
		}
		last = append(last, i)
		copies = append(copies, f.letter(s, l, ack))
	}
	if len(last) == 0 {
		return nak
	}
	stored := make([]int, 0, len(last))
	for k, r := range f.hub.publish(ctx, s.deadLetters, defaultDuplicateWindow, copies) {
		i := last[k]
		if r.Err != nil {
			ack, _ := ParseAckSubject(c.items[i].AckSubject)
			f.notBuried(ack, r.Err)
			nak = append(nak, i)
			continue
		}
		stored = append(stored, i)
	}
	payload, _ := Settlement{Kind: Term, Reason: "dead letter: " + oneLine(s.Reason)}.payload()
	terms := &settleCall{operation: c.operation, payload: payload, items: c.items, results: c.results, repeatable: true}
	f.confirm(ctx, terms, stored)
	return nak
}

func (f *feed) notBuried(ack AckSubject, err error) {
	f.hub.log.Warn("a task that failed on its last attempt could not be copied to the dead letters: it stays in its stream",
		"stream", f.stream, "consumer", f.consumer, "seq", ack.StreamSeq, "error", err)
}

// letter is the copy of a task for the dead-letter stream.
func (f *feed) letter(s Settlement, l *Lease, ack AckSubject) outgoing {
	letter := DeadLetter{Stream: ack.Stream, Consumer: ack.Consumer, Seq: ack.StreamSeq, Published: ack.Published}
	header := ownHeader(l.Header)
	if l.ID != "" {
		header[headerOriginalID] = []string{l.ID}
	}
	reason := oneLine(s.Reason)
	if reason == "" {
		reason = reasonUnsaid
	}
	for name, value := range map[string]string{
		headerDeadAttempts: strconv.FormatUint(ack.Delivered, 10),
		headerDeadConsumer: ack.Consumer,
		headerDeadReason:   reason,
		headerDeadSeq:      strconv.FormatUint(ack.StreamSeq, 10),
		headerDeadStream:   ack.Stream,
		headerDeadSubject:  l.Subject,
		headerDeadTime:     strconv.FormatInt(time.Now().UnixNano(), 10),
		headerDeadTold:     strconv.FormatInt(ack.Published.UnixNano(), 10),
		headerDeadWorker:   f.hub.cfg.Name,
		headerMessageID:    letter.key(),
	} {
		header[name] = []string{value}
	}
	return outgoing{subject: s.deadLetters + "." + letter.key(), header: header, data: l.Data}
}

// ownHeader returns a copy of a task's headers without those that a server or this package would act upon.
func ownHeader(of map[string][]string) nats.Header {
	header := make(nats.Header, len(of)+12)
	for name, values := range of {
		if lower := strings.ToLower(name); !strings.HasPrefix(lower, "nats-") && !strings.HasPrefix(lower, "natslease-") {
			header[name] = append([]string(nil), values...)
		}
	}
	return header
}

// oneLine makes of a text something that a header can carry: errors of all kinds come here.
func oneLine(s string) string {
	s = strings.ToValidUTF8(redactText(s), "?")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	s = strings.TrimSpace(s)
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return s
}
