package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// maxDeliveriesAdvisories is where the server tells of tasks that it will not give out again.
const maxDeliveriesAdvisories = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."

// maxLetters is how many letters one call can read or requeue.
const maxLetters = 10_000

// DeadLetters returns up to limit of the queue's tasks that have failed on their last attempt, the oldest first: those
// that were NAKed, and those whose last taker died, of which the server tells once a later reserve has met them.
func (q *Queue) DeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	const operation = "dead_letters"
	err := q.wantsDeadLetters()
	if err == nil && (limit < 1 || limit > maxLetters) {
		err = configError("limit is %d: it must be from 1 to %d", limit, maxLetters)
	}
	if err != nil {
		return nil, inOperation(operation, err, OutcomeRejected)
	}
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return nil, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	letters, err := q.readDeadLetters(ctx, limit)
	return letters, inOperation(operation, err, OutcomeNotSent)
}

func (q *Queue) wantsDeadLetters() error {
	if q.cfg.DeadLetters == "" {
		return configError("the queue keeps no dead letters: its option DeadLetters names no stream")
	}
	return nil
}

func (q *Queue) readDeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	var letters []DeadLetter
	seen := make(map[string]bool)
	add := func(l *DeadLetter) bool {
		if !seen[l.key()] {
			seen[l.key()] = true
			letters = append(letters, *l)
		}
		return len(letters) < limit
	}
	subject := q.cfg.DeadLetters + "." + q.cfg.Stream + "." + q.cfg.Consumer + ".*.*"
	err := q.hub.eachStored(ctx, q.cfg.DeadLetters, subject, func(m *storedMessage) (bool, error) {
		if len(m.header[headerRequeued]) > 0 {
			// Whoever requeued it did not come to removing its copies.
			letters = slices.DeleteFunc(letters, func(l DeadLetter) bool { return m.Subject == q.letterSubject(&l) })
			return true, nil
		}
		l := readLetter(m)
		return l == nil || add(l), nil
	})
	if err != nil {
		return nil, q.aboutDeadLetters(err)
	}
	if len(letters) < limit {
		if err := q.readAdvisories(ctx, seen, add); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(letters, func(i, j int) bool { return letters[i].Died.Before(letters[j].Died) })
	return letters, nil
}

// letterSubject is the subject of a letter's copies, and of nothing else.
func (q *Queue) letterSubject(l *DeadLetter) string { return q.cfg.DeadLetters + "." + l.key() }

// aboutDeadLetters tells a missing dead-letter stream from a missing queue.
func (q *Queue) aboutDeadLetters(err error) error {
	if CodeOf(err) != CodeQueueNotFound {
		return err
	}
	return newError(CodeQueueNotFound, OutcomeRejected, "the stream %s of the dead letters does not exist: call Ensure", q.cfg.DeadLetters)
}

// readLetter reads a copy; nil when it is none, or has been requeued.
func readLetter(m *storedMessage) *DeadLetter {
	text := func(name string) string {
		if values := m.header[name]; len(values) > 0 {
			return values[0]
		}
		return ""
	}
	seq, err := strconv.ParseUint(text(headerDeadSeq), 10, 64)
	if err != nil || text(headerRequeued) != "" {
		return nil
	}
	nanoseconds := func(name string) time.Time {
		n, _ := strconv.ParseInt(text(name), 10, 64)
		return time.Unix(0, n)
	}
	attempts, _ := strconv.Atoi(text(headerDeadAttempts))
	return &DeadLetter{
		Stream: text(headerDeadStream), Consumer: text(headerDeadConsumer), Seq: seq, Published: nanoseconds(headerDeadTold),
		Subject: text(headerDeadSubject), ID: text(headerOriginalID), Data: m.Data, Header: shownHeader(m.header),
		Attempts: attempts, Reason: text(headerDeadReason), Worker: text(headerDeadWorker), Died: nanoseconds(headerDeadTime),
	}
}

func shownHeader(of nats.Header) Header {
	header := ownHeader(of)
	if len(header) == 0 {
		return nil
	}
	return Header(header)
}

// advisory is what the server says when a task has reached max_deliver.
type advisory struct {
	Time       time.Time `json:"timestamp"`
	Seq        uint64    `json:"stream_seq"`
	Deliveries int       `json:"deliveries"`
}

// readAdvisories adds the tasks whose takers died on their last attempt.
func (q *Queue) readAdvisories(ctx context.Context, seen map[string]bool, add func(*DeadLetter) bool) error {
	subject := q.advisorySubject()
	streams, err := q.hub.streamsOver(ctx, subject)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		more := true
		err := q.hub.eachStored(ctx, stream, subject, func(m *storedMessage) (bool, error) {
			var a advisory
			if json.Unmarshal(m.Data, &a) != nil {
				return true, nil
			}
			l, err := q.advised(ctx, a, seen)
			if err != nil {
				return false, err
			}
			if l != nil {
				more = add(l)
			} else if stream == q.cfg.DeadLetters {
				// It says nothing any more. Where removing it is not permitted it is passed over each time.
				_, _ = q.hub.api(ctx, "STREAM.MSG.DELETE."+stream, removal{Seq: m.Seq, NoErase: true}, nil)
			}
			return more, nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// advised is the task of an advisory; nil when it is no longer there, or has been requeued.
func (q *Queue) advised(ctx context.Context, a advisory, seen map[string]bool) (*DeadLetter, error) {
	m, err := q.hub.storedOrNil(ctx, q.cfg.Stream, storedAt{Seq: a.Seq})
	if err != nil || m == nil || m.Time.After(a.Time) {
		return nil, err // what is there now came later: the stream was made anew
	}
	l := q.undelivered(m)
	l.Attempts, l.Died = a.Deliveries, a.Time
	if seen[l.key()] {
		return l, nil
	}
	last, err := q.hub.storedOrNil(ctx, q.cfg.DeadLetters, storedAt{LastOn: q.letterSubject(l)})
	if err == nil && last != nil && len(last.header[headerRequeued]) > 0 {
		return nil, nil
	}
	return l, err
}

// undelivered is the letter of a task that is still in its stream, of which only the server's advisory tells.
func (q *Queue) undelivered(m *storedMessage) *DeadLetter {
	task := Lease{Header: Header(m.header)}
	id := task.first(headerOriginalID)
	if id == "" {
		id = task.first(headerMessageID)
	}
	return &DeadLetter{
		Stream: q.cfg.Stream, Consumer: q.cfg.Consumer, Seq: m.Seq, Published: m.Time, Subject: m.Subject, ID: id,
		Data: m.Data, Header: shownHeader(m.header), Reason: reasonUnsettle,
	}
}

// storedOrNil is stored where "there is none" is an answer like others.
func (h *hub) storedOrNil(ctx context.Context, stream string, at storedAt) (*storedMessage, error) {
	m, failure, err := h.stored(ctx, stream, at)
	if err == nil && failure != nil && failure.ErrCode != errCodeNoMessage {
		err = failure.asError()
	}
	return m, err
}
