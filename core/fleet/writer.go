package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

const (
	// flushEvery is how long events are collected before they are written.
	flushEvery = 250 * time.Millisecond
	// maxQueued bounds the tasks of events that wait to be written.
	maxQueued = 100_000
	// maxMessage bounds the bytes of ids in one message, and with them roughly the message.
	maxMessage = 128 << 10
	// maxTasks bounds the tasks of one message.
	maxTasks = 4096
	// writeTimeout is what one flush may take.
	writeTimeout = 2 * time.Second
	// awayPause is how long nothing is recorded after the stream of events could not be written to.
	awayPause = 5 * time.Second
	// maxNamed is how many tasks a log line names.
	maxNamed = 64
	// maxText bounds a reason and an id.
	maxText = 256
)

// writer writes events off the way of those who record them: what is done with tasks never waits for it. It has a
// goroutine while there is something to write.
type writer struct {
	fleet   *Fleet
	written atomic.Uint64
	dropped atomic.Uint64

	mu      sync.Mutex
	queue   []recorded
	queued  int // tasks in queue
	away    time.Time
	running bool
	closed  bool
	hurry   chan struct{}   // has a value when a flush is wanted now
	waiting []chan struct{} // closed when what is in queue has been written or dropped
}

// recorded is an event as it was recorded: some of its tasks may still be in their ack subjects.
type recorded struct {
	Event
	subjects []string
}

func newWriter(f *Fleet) *writer {
	return &writer{fleet: f, hurry: make(chan struct{}, 1)}
}

// record does not wait. It returns false when the event was given up.
func (w *writer) record(e recorded) bool {
	n := len(e.Seqs) + len(e.subjects)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.queued+n > maxQueued || !w.away.IsZero() && e.At.Before(w.away) {
		w.dropped.Add(1)
		return false
	}
	w.queue = append(w.queue, e)
	w.queued += n
	if !w.running {
		w.running = true
		go w.run()
	}
	return true
}

// run writes what is recorded until there is nothing.
func (w *writer) run() {
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.hurry:
		}
		w.mu.Lock()
		queue, waiting := w.queue, w.waiting
		w.queue, w.queued, w.waiting = nil, 0, nil
		w.running = len(queue) > 0
		w.mu.Unlock()
		if len(queue) > 0 {
			w.flush(queue)
		}
		for _, written := range waiting {
			close(written)
		}
		if len(queue) == 0 {
			return
		}
		timer.Reset(flushEvery)
	}
}

func (w *writer) flush(queue []recorded) {
	messages := w.assemble(queue)
	entries := make([]natslease.Entry, 0, len(messages))
	now := time.Now()
	for _, m := range messages {
		entries = append(entries, natslease.Entry{Subject: w.fleet.cfg.Events + "." + m.stream, Data: m.encode(now)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	results, err := w.fleet.events.Append(ctx, entries)
	var missing []int // what was not stored for want of the stream, which somebody may have made meanwhile
	for i := range results {
		if e := results[i].Err; e != nil && e.Code == natslease.CodeQueueNotFound {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 && w.fleet.events.Ensure(ctx) == nil {
		for _, i := range missing {
			if one, _ := w.fleet.events.Append(ctx, entries[i:i+1]); len(one) == 1 {
				results[i] = one[0]
			}
		}
	}
	failed := uint64(len(entries) - len(results))
	for i := range results {
		if results[i].Err != nil {
			failed++
			err = results[i].Err
		}
	}
	w.written.Add(uint64(len(entries)) - failed)
	w.dropped.Add(failed)
	if err == nil {
		return
	}
	w.fleet.client.Logger().Warn("events could not be written", "stream", w.fleet.cfg.Events, "dropped", failed, "error", err)
	w.mu.Lock()
	w.away = time.Now().Add(awayPause)
	w.mu.Unlock()
}

// close writes what is there, and records nothing more.
func (w *writer) close(ctx context.Context) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.drain(ctx)
	w.nudge() // the goroutine finds nothing, and ends
}

// drain has what is recorded written now, and waits for that.
func (w *writer) drain(ctx context.Context) {
	w.mu.Lock()
	if !w.running {
		w.mu.Unlock()
		return
	}
	written := make(chan struct{})
	w.waiting = append(w.waiting, written)
	w.mu.Unlock()
	w.nudge()
	select {
	case <-written:
	case <-ctx.Done():
	}
}

func (w *writer) nudge() {
	select {
	case w.hurry <- struct{}{}:
	default:
	}
}

// outgoing is a message that is being assembled.
type outgoing struct {
	stream  string
	who     taker
	batches []Event
	last    map[uint64]int // by task: the last batch that it is in
	bytes   int
}

// assemble makes as few messages and batches of events as keeps the order of each task's events.
func (w *writer) assemble(queue []recorded) []*outgoing {
	type destination struct {
		stream string
		who    taker
	}
	open := make(map[destination]*outgoing)
	var all []*outgoing
	for i := range queue {
		e := &queue[i].Event
		for _, subject := range queue[i].subjects {
			if ack, err := natslease.ParseAckSubject(subject); err == nil {
				e.Seqs = append(e.Seqs, ack.StreamSeq)
			}
		}
		if len(e.Seqs) == 0 {
			continue
		}
		to := destination{e.Stream, taker{e.Worker, e.Epoch}}
		m := open[to]
		if m == nil || m.bytes > maxMessage || len(m.last) > maxTasks {
			m = &outgoing{stream: to.stream, who: to.who, last: make(map[uint64]int)}
			open[to] = m
			all = append(all, m)
		}
		m.add(e)
	}
	for _, m := range all {
		for i := range m.batches {
			w.log(&m.batches[i])
		}
	}
	return all
}

func (m *outgoing) add(e *Event) {
	least := 0 // the first batch that may take it
	for _, seq := range e.Seqs {
		if i, ok := m.last[seq]; ok && i >= least {
			least = i + 1
		}
	}
	into := -1
	for i := least; i < len(m.batches); i++ {
		if b := &m.batches[i]; b.Kind == e.Kind && b.Consumer == e.Consumer && b.Reason == e.Reason && b.Unsure == e.Unsure &&
			b.AckWait == e.AckWait && (b.IDs == nil) == (e.IDs == nil) {
			into = i
			break
		}
	}
	if into < 0 {
		into = len(m.batches)
		m.batches = append(m.batches, *e)
		b := &m.batches[into]
		b.Seqs, b.IDs, b.Attempts = nil, nil, nil
	}
	b := &m.batches[into]
	b.take(e)
	for _, seq := range e.Seqs {
		m.last[seq] = into
		m.bytes += 8
	}
	for _, id := range e.IDs {
		m.bytes += len(id)
	}
}

// take adds the tasks of another event of its kind.
func (b *Event) take(e *Event) {
	if e.Attempts != nil && b.Attempts == nil {
		b.Attempts = make([]int, len(b.Seqs))
		for i := range b.Attempts {
			b.Attempts[i] = 1
		}
	}
	for i, seq := range e.Seqs {
		b.Seqs = append(b.Seqs, seq)
		if e.IDs != nil {
			b.IDs = append(b.IDs, cut(e.IDs[i]))
		}
		switch {
		case e.Attempts != nil:
			b.Attempts = append(b.Attempts, e.Attempts[i])
		case b.Attempts != nil:
			b.Attempts = append(b.Attempts, 1)
		}
	}
}

// cut makes a text that came from outside short enough.
func cut(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

func (m *outgoing) encode(now time.Time) []byte {
	message := eventMessage{Worker: m.who.Identity, Epoch: m.who.Epoch, Batches: make([]eventBatch, len(m.batches))}
	for i := range m.batches {
		b := &m.batches[i]
		message.Batches[i] = eventBatch{
			Kind: b.Kind, Age: now.Sub(b.At).Milliseconds(), Consumer: b.Consumer, Seqs: b.Seqs, IDs: b.IDs, Attempts: b.Attempts,
			AckWait: b.AckWait.Milliseconds(), Reason: cut(b.Reason), Unsure: b.Unsure,
		}
	}
	data, err := json.Marshal(message)
	if err != nil {
		panic(err) // strings and numbers
	}
	return data
}

var said = map[EventKind]string{
	Reserved: "reserved", Acked: "acked", Naked: "failed", Released: "released", Extended: "extended", Termed: "failed for good",
}

// log tells of an event in words.
func (w *writer) log(e *Event) {
	logger := w.fleet.client.Logger()
	if !logger.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	names := make([]string, 0, min(len(e.Seqs), maxNamed)+1)
	for i := range e.Seqs {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("and %d more", len(e.Seqs)-i))
			break
		}
		names = append(names, e.taskName(i))
	}
	attributes := []any{"queue", e.Stream, "worker", e.Worker.String(), "tasks", strings.Join(names, " ")}
	if e.Reason != "" {
		attributes = append(attributes, "reason", cut(e.Reason))
	}
	if e.Unsure {
		attributes = append(attributes, "confirmed", false)
	}
	logger.Info(fmt.Sprintf("%s %d", said[e.Kind], len(e.Seqs)), attributes...)
}

// Record writes down, without waiting, what a worker that another process speaks for has got or done. Only Kind, Worker,
// Epoch and the leases' ack subjects are needed, and IDs for a reserve.
func (f *Fleet) Record(e Event, ackSubjects []string) error {
	if _, ok := said[e.Kind]; !ok {
		return refused(natslease.CodeConfig, "kind: is %q: use reserve, ack, nak, release, extend or term", e.Kind)
	}
	if err := e.Worker.check(); err != nil {
		return err
	}
	if e.IDs != nil && len(e.IDs) != len(ackSubjects) {
		return refused(natslease.CodeConfig, "ids: are %d for %d leases", len(e.IDs), len(ackSubjects))
	}
	byQueue := make(map[[2]string]*Event)
	var order []*Event
	for i, subject := range ackSubjects {
		ack, err := natslease.ParseAckSubject(subject)
		if err != nil {
			return err
		}
		key := [2]string{ack.Stream, ack.Consumer}
		q := byQueue[key]
		if q == nil {
			copied := e
			q = &copied
			q.At, q.Stream, q.Consumer, q.Seqs, q.IDs, q.Attempts = time.Now(), ack.Stream, ack.Consumer, nil, nil, nil
			byQueue[key] = q
			order = append(order, q)
		}
		q.Seqs = append(q.Seqs, ack.StreamSeq)
		if e.IDs != nil {
			q.IDs = append(q.IDs, e.IDs[i])
		}
		if e.Kind == Reserved {
			q.Attempts = append(q.Attempts, int(ack.Delivered))
		}
	}
	for _, q := range order {
		f.writer.record(recorded{Event: *q})
	}
	return nil
}

// Flush has the recorded events written now, and waits for that.
func (f *Fleet) Flush(ctx context.Context) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	f.writer.drain(ctx)
}
