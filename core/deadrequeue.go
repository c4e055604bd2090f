package natslease

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Requeue publishes dead letters again as tasks of the queue, and then removes them from the dead letters. It needs
// only Stream, Consumer, Seq and Published of each.
//
// Their message ids are fresh, so that the server does not take them for duplicates, and the same for the same letter,
// so that requeuing it twice within the duplicate window enqueues it once. Lease.ID stays the publisher's. A letter that
// is no longer there fails with CodeLeaseGone.
func (q *Queue) Requeue(ctx context.Context, letters []DeadLetter) (PublishReport, error) {
	const operation = "requeue"
	if err := q.wantsDeadLetters(); err != nil {
		return PublishReport{}, inOperation(operation, err, OutcomeRejected)
	}
	if len(letters) > maxLetters {
		return PublishReport{}, inOperation(operation, configError("%d letters are too many: at most %d", len(letters), maxLetters), OutcomeRejected)
	}
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return PublishReport{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	keeps, err := q.keepsSettled(ctx)
	if err != nil {
		return PublishReport{}, inOperation(operation, err, OutcomeNotSent)
	}
	out := make([]outgoing, len(letters))
	for i := range letters {
		out[i] = q.again(ctx, &letters[i])
	}
	results := q.hub.publish(ctx, q.cfg.Stream, q.cfg.DuplicateWindow, out)
	for i := range results {
		r := &results[i]
		r.ID = "requeued." + letters[i].key()
		if r.Err != nil {
			r.Err = asOperation(operation, r.Err)
			continue
		}
		if err := q.strike(ctx, &letters[i], keeps); err != nil {
			q.hub.log.Warn("a letter was requeued, but could not be removed from the dead letters", "stream", q.cfg.Stream,
				"seq", letters[i].Seq, "error", err)
		}
	}
	return PublishReport{Results: results}, nil
}

// Discard takes dead letters off without making tasks of them, and returns how many were still there. It needs only
// Stream, Consumer, Seq and Published of each.
func (q *Queue) Discard(ctx context.Context, letters []DeadLetter) (int, error) {
	const operation = "discard"
	if err := q.wantsDeadLetters(); err != nil {
		return 0, inOperation(operation, err, OutcomeRejected)
	}
	if len(letters) > maxLetters {
		return 0, inOperation(operation, configError("%d letters are too many: at most %d", len(letters), maxLetters), OutcomeRejected)
	}
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return 0, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	n, err := q.discard(ctx, letters)
	return n, inOperation(operation, err, OutcomeUnknown)
}

func (q *Queue) discard(ctx context.Context, letters []DeadLetter) (int, error) {
	keeps, err := q.keepsSettled(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range letters {
		l := &letters[i]
		if l.Stream != q.cfg.Stream || l.Consumer != q.cfg.Consumer {
			return n, configError("a letter of %s/%s is of another queue, not of %s/%s", l.Stream, l.Consumer, q.cfg.Stream, q.cfg.Consumer)
		}
		found, err := q.find(ctx, l)
		if err != nil {
			return n, err
		}
		if found == nil {
			continue
		}
		if err := q.strike(ctx, l, keeps); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// keepsSettled tells whether the queue's stream keeps tasks that are settled.
func (q *Queue) keepsSettled(ctx context.Context) (bool, error) {
	var info streamInfo
	failure, err := q.hub.api(ctx, "STREAM.INFO."+q.cfg.Stream, nil, &info)
	if err == nil && failure != nil {
		err = failure.asError()
	}
	if err != nil {
		return false, err
	}
	var config streamConfig
	if err := json.Unmarshal(info.Config, &config); err != nil {
		return false, newError(CodeServer, OutcomeNotSent, "the stream's configuration could not be read: %s", err)
	}
	return config.Retention != "workqueue", nil
}

// again is the message that makes a task of a letter once more. It is read from where it is kept: somebody else may have
// requeued it since it was listed.
func (q *Queue) again(ctx context.Context, l *DeadLetter) outgoing {
	if l.Stream != q.cfg.Stream || l.Consumer != q.cfg.Consumer {
		return outgoing{invalid: configError("it is a letter of another queue, not of %s/%s", q.cfg.Stream, q.cfg.Consumer)}
	}
	found, err := q.find(ctx, l)
	switch {
	case err != nil:
		return outgoing{invalid: asOperation("", err).unsent()}
	case found == nil:
		return outgoing{invalid: newError(CodeLeaseGone, OutcomeRejected, "the letter is no longer there: it was requeued or removed before")}
	}
	header := ownHeader(found.Header)
	if found.ID != "" {
		header[headerOriginalID] = []string{found.ID}
	}
	header[headerMessageID] = []string{"requeued." + l.key()}
	return outgoing{subject: found.Subject, header: header, data: found.Data}
}

// find reads a letter anew: its copy, or else the task in its stream. Nil when there is neither.
func (q *Queue) find(ctx context.Context, l *DeadLetter) (*DeadLetter, error) {
	m, err := q.hub.storedOrNil(ctx, q.cfg.DeadLetters, storedAt{LastOn: q.letterSubject(l)})
	if err != nil {
		return nil, q.aboutDeadLetters(err)
	}
	if m != nil {
		return readLetter(m), nil // nil: it was requeued
	}
	if l.Seq == 0 {
		return nil, nil
	}
	m, err = q.hub.storedOrNil(ctx, q.cfg.Stream, storedAt{Seq: l.Seq})
	if err != nil || m == nil || !m.Time.Equal(l.Published) {
		return nil, err
	}
	return q.undelivered(m), nil
}

type removal struct {
	Seq     uint64 `json:"seq"`
	NoErase bool   `json:"no_erase"`
}

// strike takes a letter off the dead letters. On a work queue the task is removed, if it is still there. Elsewhere it
// stays, and a mark takes the place of its copy, lest the server's advisory bring it up again.
func (q *Queue) strike(ctx context.Context, l *DeadLetter, keeps bool) error {
	subject := q.letterSubject(l)
	purge := map[string]any{"filter": subject}
	if keeps {
		mark := outgoing{subject: subject, header: nats.Header{
			headerRequeued:  {strconv.FormatInt(time.Now().UnixNano(), 10)},
			headerMessageID: {"requeued." + l.key()},
		}}
		if r := q.hub.publish(ctx, q.cfg.DeadLetters, defaultDuplicateWindow, []outgoing{mark})[0]; r.Err != nil {
			return r.Err
		}
		purge["keep"] = 1
	} else {
		// Copied and TERMed it is gone already, and its sequence is never another's.
		m, err := q.hub.storedOrNil(ctx, q.cfg.Stream, storedAt{Seq: l.Seq})
		if err == nil && m != nil && m.Time.Equal(l.Published) {
			_, err = q.hub.api(ctx, "STREAM.MSG.DELETE."+q.cfg.Stream, removal{Seq: l.Seq, NoErase: true}, nil)
		}
		if err != nil {
			return err
		}
	}
	failure, err := q.hub.api(ctx, "STREAM.PURGE."+q.cfg.DeadLetters, purge, nil)
	if err == nil && failure != nil {
		err = failure.asError()
	}
	return err
}
