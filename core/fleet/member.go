package fleet

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// Member is a worker that takes tasks with the fleet's client. While it is one, what the client reserves and settles is
// recorded; once a newer worker has its place the client's reserves fail with CodeSuperseded.
type Member struct {
	fleet *Fleet
	id    Identity
	epoch uint64

	over  chan struct{}                   // closed when it is superseded
	cause atomic.Pointer[natslease.Error] // set before that
	doubt atomic.Bool                     // somebody has written its record
	poke  chan struct{}                   // has a value when the record is to be looked at
	stop  context.CancelFunc
	done  chan struct{} // closed when its goroutine has ended
	turn  chan struct{} // has a value while nobody looks at the record

	// Of whoever has the turn.
	details  Details
	revision uint64
	joined   time.Time
	fencings []time.Time
	listener *natslease.Listener
	deaf     bool // it may not listen to its record
	checked  time.Time

	known atomic.Pointer[certainty]

	mu   sync.Mutex
	held map[string]heldLease // by ack subject
}

// certainty is what lets calls through without a request.
type certainty struct {
	listener *natslease.Listener // nil when it may not listen
	until    time.Time           // of no meaning where there is a listener
}

type heldLease struct {
	queue   *natslease.Queue
	seq     uint64
	expires time.Time
}

// deafCheck is how often a member looks at its record that may not listen to it.
const deafCheck = time.Second

// Join registers this process as a worker and has the client tracked.
func (f *Fleet) Join(ctx context.Context, id Identity, details Details) (*Member, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	r, err := f.register(ctx, id, details, thisProcess())
	if err != nil {
		return nil, err
	}
	m := &Member{
		fleet: f, id: id, epoch: r.Epoch, over: make(chan struct{}), poke: make(chan struct{}, 1), done: make(chan struct{}),
		turn: make(chan struct{}, 1), details: details, revision: r.revision, fencings: r.fencings, held: make(map[string]heldLease),
	}
	if last, err := f.last(ctx, id); err == nil && last != nil && last.Epoch == r.Epoch {
		m.joined = last.Joined
	}
	m.turn <- struct{}{}
	if err := m.look(ctx); err != nil {
		return nil, err
	}
	var life context.Context
	life, m.stop = context.WithCancel(context.Background())
	go m.run(life)
	f.client.Track(m)
	f.client.Logger().Info("worker joined", "worker", id.String(), "epoch", m.epoch)
	return m, nil
}

// Identity is the worker's place.
func (m *Member) Identity() Identity { return m.id }

// Epoch is the number of its registration.
func (m *Member) Epoch() uint64 { return m.epoch }

// Superseded is why it may not go on; nil while it may, as far as is known here.
func (m *Member) Superseded() error {
	if e := m.cause.Load(); e != nil {
		return e
	}
	return nil
}

// Update changes what the worker tells of itself, from its next sign of life on.
func (m *Member) Update(ctx context.Context, details Details) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	m.details = details
	m.turn <- struct{}{}
	m.nudge()
	return nil
}

// Leave ends the membership; the worker is offline from then on.
func (m *Member) Leave(ctx context.Context) error {
	ctx, cancel := m.fleet.within(ctx)
	defer cancel()
	m.fleet.client.Untrack(m)
	m.stop()
	<-m.done // it has been told, and what it waits for ends with that
	if err := m.take(ctx); err != nil {
		return err
	}
	defer func() { m.turn <- struct{}{} }()
	if m.listener != nil {
		m.listener.Close()
	}
	m.fleet.writer.drain(ctx)
	if m.cause.Load() != nil {
		return nil // the place is somebody else's
	}
	m.fleet.client.Logger().Info("worker left", "worker", m.id.String(), "epoch", m.epoch)
	return m.fleet.Leave(ctx, m.id, m.epoch)
}

// run gives a sign of life at each heartbeat, and looks at the record when somebody else has written it.
func (m *Member) run(life context.Context) {
	defer close(m.done)
	heartbeat := m.fleet.cfg.Heartbeat
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-m.over:
			return
		case <-timer.C:
		case <-m.poke:
		}
		ctx, cancel := context.WithTimeout(life, max(heartbeat, time.Second))
		err := m.renew(ctx)
		cancel()
		switch {
		case natslease.CodeOf(err) == natslease.CodeClientClosed:
			return
		case err != nil && life.Err() == nil && m.cause.Load() == nil:
			m.fleet.client.Logger().Warn("a worker could not give its sign of life", "worker", m.id.String(), "error", err)
		}
		timer.Reset(heartbeat*9/10 + rand.N(heartbeat/5))
	}
}

func (m *Member) renew(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer func() { m.turn <- struct{}{} }()
	return m.look(ctx)
}

// take waits for the turn to look at the record.
func (m *Member) take(ctx context.Context) error {
	select {
	case <-m.turn:
		return nil
	case <-ctx.Done():
		e := &natslease.Error{Code: natslease.CodeDeadline, Outcome: natslease.OutcomeNotSent, Message: "the deadline passed before the worker's registration was known to stand"}
		if ctx.Err() == context.Canceled {
			e.Code, e.Message = natslease.CodeCanceled, "the caller cancelled it"
		}
		return e
	}
}

// look listens to the record, if it does not, and renews it: from then on it is certain that the worker has its place
// until somebody is heard to write there.
func (m *Member) look(ctx context.Context) error {
	if err := m.listen(ctx); err != nil {
		return err
	}
	m.doubt.Store(false)
	for {
		r := &record{
			Identity: m.id, Details: m.details, Epoch: m.epoch, Joined: m.joined, Fencings: m.fencings, Process: thisProcess(),
			Holding: m.holding(),
		}
		seq, err := m.fleet.write(ctx, r, m.revision)
		if err == nil {
			m.revision = seq
			m.checked = time.Now()
			m.known.Store(&certainty{listener: m.listener, until: m.checked.Add(deafCheck)})
			return nil
		}
		if natslease.CodeOf(err) != natslease.CodeConflict {
			return err
		}
		now, err := m.fleet.last(ctx, m.id)
		if err != nil {
			return err
		}
		if err := superseded(m.id, m.epoch, now); err != nil {
			m.end(err.(*natslease.Error))
			return err
		}
		m.revision = 0
		if now != nil {
			m.revision = now.revision
		}
	}
}

func (m *Member) listen(ctx context.Context) error {
	if m.listener != nil && m.listener.Alive() || m.deaf {
		return nil
	}
	if m.listener != nil {
		m.listener.Close()
		m.listener = nil
	}
	l, err := m.fleet.client.Listen(ctx, m.fleet.key(m.id.key()), m.heard)
	if natslease.CodeOf(err) == natslease.CodePermissionDenied {
		m.deaf = true
		m.fleet.client.Logger().Warn("a worker may not listen to its record, and looks at it once a second", "worker", m.id.String(), "error", err)
		return nil
	}
	m.listener = l
	return err
}

// heard is what somebody has written, or tried to, to the worker's record.
func (m *Member) heard(data []byte) {
	r := new(record)
	if json.Unmarshal(data, r) == nil && r.Epoch == m.epoch && r.Stopped == "" {
		return // a sign of life
	}
	m.doubt.Store(true)
	m.nudge()
}

func (m *Member) nudge() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

func (m *Member) end(cause *natslease.Error) {
	if m.cause.CompareAndSwap(nil, cause) {
		m.fleet.client.Logger().Error("worker superseded", "worker", m.id.String(), "epoch", m.epoch, "error", cause)
		close(m.over)
	}
}

// certain tells whether the worker has its place.
func (m *Member) certain() bool {
	c := m.known.Load()
	switch {
	case c == nil || m.doubt.Load():
		return false
	case c.listener != nil:
		return c.listener.Alive()
	}
	return time.Now().Before(c.until)
}

// Admit is of natslease.Tracker. Where it is not certain that the worker has its place, it finds out.
func (m *Member) Admit(ctx context.Context) error {
	if e := m.cause.Load(); e != nil {
		return e
	}
	if m.certain() {
		return nil
	}
	if err := m.take(ctx); err != nil {
		return err
	}
	defer func() { m.turn <- struct{}{} }()
	if m.certain() {
		return nil
	}
	if e := m.cause.Load(); e != nil {
		return e
	}
	return m.look(ctx)
}

// Ended is of natslease.Tracker.
func (m *Member) Ended() <-chan struct{} { return m.over }

// Reserved is of natslease.Tracker.
func (m *Member) Reserved(leases []*natslease.Lease) {
	now := time.Now()
	m.mu.Lock()
	for _, l := range leases {
		m.held[l.AckSubject] = heldLease{l.Queue(), l.Seq, l.Expires}
	}
	m.mu.Unlock()
	for len(leases) > 0 {
		q, n := leases[0].Queue(), 1
		for n < len(leases) && leases[n].Queue() == q {
			n++
		}
		e := Event{
			Kind: Reserved, At: now, Worker: m.id, Epoch: m.epoch, Stream: q.Config().Stream, Consumer: q.Config().Consumer,
			Seqs: make([]uint64, n), AckWait: leases[0].Expires.Sub(now).Round(time.Second),
		}
		for i, l := range leases[:n] {
			e.Seqs[i] = l.Seq
			if l.ID != "" && e.IDs == nil {
				e.IDs = make([]string, n)
			}
			if l.ID != "" {
				e.IDs[i] = l.ID
			}
			if l.Attempt != 1 && e.Attempts == nil {
				e.Attempts = make([]int, n)
				for j := range i {
					e.Attempts[j] = 1
				}
			}
			if e.Attempts != nil {
				e.Attempts[i] = l.Attempt
			}
		}
		m.fleet.writer.record(recorded{Event: e})
		leases = leases[n:]
	}
}

var kinds = map[natslease.SettleKind]EventKind{
	natslease.Ack: Acked, natslease.Nak: Naked, natslease.Release: Released, natslease.Extend: Extended, natslease.Term: Termed,
}

// Settled is of natslease.Tracker.
func (m *Member) Settled(q *natslease.Queue, s natslease.Settlement, items []natslease.SettleItem, results []natslease.SettleResult) {
	e := Event{
		Kind: kinds[s.Kind], At: time.Now(), Worker: m.id, Epoch: m.epoch, Stream: q.Config().Stream, Consumer: q.Config().Consumer,
		Reason: s.Reason,
	}
	certain, unsure := recorded{Event: e}, recorded{Event: e}
	unsure.Unsure = true
	m.mu.Lock()
	for i := range results {
		subject := items[i].AckSubject
		held, ok := m.held[subject]
		var to *recorded
		switch results[i].Status {
		case natslease.Settled:
			to = &certain
		case natslease.Unknown:
			to = &unsure
		default: // nothing was done, or nothing is left
		}
		switch {
		case to == nil:
		case ok:
			if to.Seqs == nil {
				to.Seqs = make([]uint64, 0, len(results))
			}
			to.Seqs = append(to.Seqs, held.seq)
		default: // a lease of another process
			to.subjects = append(to.subjects, subject)
		}
		switch {
		case s.Kind != natslease.Extend:
			delete(m.held, subject)
		case ok && !results[i].Expires.IsZero():
			held.expires = results[i].Expires
			m.held[subject] = held
		}
	}
	m.mu.Unlock()
	for _, r := range []recorded{certain, unsure} {
		if len(r.Seqs)+len(r.subjects) > 0 {
			m.fleet.writer.record(r)
		}
	}
}

// holding counts the leases that the worker has.
func (m *Member) holding() holding {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	count := make(holding)
	for subject, l := range m.held {
		if l.expires.Before(now) {
			until := l.queue.KeptUntil(subject)
			if until.Before(now) {
				delete(m.held, subject)
				continue
			}
			l.expires = until
			m.held[subject] = l
		}
		count[l.queue.Config().Stream]++
	}
	return count
}
