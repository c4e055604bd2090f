package pybind

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// DeadLetters returns up to limit letters of the queue.
func DeadLetters(ticket, timeout, slice, notifier, queue, limit int64) (answer []byte) {
	defer rescue(&answer)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		letters, err := q.DeadLetters(ctx, int(limit))
		if err != nil {
			return encodeError(pythonNames(err)), nil
		}
		return encodeLetters(letters), nil
	})
}

// Requeue takes names and returns a report.
func Requeue(ticket, timeout, slice, notifier, queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	letters, err := decodeNames(body)
	if err != nil {
		return encodeError(err)
	}
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		report, err := q.Requeue(ctx, letters)
		if err != nil {
			return encodeError(pythonNames(err)), nil
		}
		return encodeReport(report), nil
	})
}

// Discard takes names and returns how many letters were still there.
func Discard(ticket, timeout, slice, notifier, queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	letters, err := decodeNames(body)
	if err != nil {
		return encodeError(err)
	}
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		n, err := q.Discard(ctx, letters)
		if err != nil {
			return encodeError(pythonNames(err)), nil
		}
		return encodeValue(n), nil
	})
}

// letterName is which letter is meant.
type letterName struct {
	Stream    string `json:"stream"`
	Consumer  string `json:"consumer"`
	Seq       uint64 `json:"seq"`
	Published int64  `json:"published"`
}

type letterText struct {
	letterName
	Subject  string      `json:"subject"`
	ID       string      `json:"id"`
	Data     []byte      `json:"data"`
	Headers  [][2]string `json:"headers"`
	Attempts int         `json:"attempts"`
	Reason   string      `json:"reason"`
	Worker   string      `json:"worker"`
	Died     int64       `json:"died"`
}

func encodeLetters(letters []natslease.DeadLetter) []byte {
	texts := make([]letterText, len(letters))
	for i := range letters {
		l := &letters[i]
		texts[i] = letterText{
			letterName: letterName{l.Stream, l.Consumer, l.Seq, l.Published.UnixNano()},
			Subject:    l.Subject, ID: l.ID, Data: l.Data, Headers: [][2]string{}, Attempts: l.Attempts, Reason: l.Reason,
			Worker: l.Worker, Died: l.Died.UnixNano(),
		}
		for _, name := range slices.Sorted(maps.Keys(l.Header)) {
			for _, value := range l.Header[name] {
				texts[i].Headers = append(texts[i].Headers, [2]string{name, value})
			}
		}
	}
	return encodeValue(texts)
}

func decodeNames(body []byte) ([]natslease.DeadLetter, error) {
	var names []letterName
	if err := json.Unmarshal(body, &names); err != nil {
		return nil, errMalformed
	}
	letters := make([]natslease.DeadLetter, len(names))
	for i, n := range names {
		letters[i] = natslease.DeadLetter{Stream: n.Stream, Consumer: n.Consumer, Seq: n.Seq, Published: time.Unix(0, n.Published)}
	}
	return letters, nil
}
