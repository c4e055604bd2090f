package fleet

import (
	"context"
	"sort"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// State is what a task's last event says of it.
type State string

// The states of a task. One that was failed, released or whose lease ran out is offered again while it has attempts.
const (
	StateLeased   State = "leased"
	StateExpired  State = "expired" // leased, and the lease ran out unless the worker has it kept
	StateDone     State = "done"
	StateFailed   State = "failed"
	StateReleased State = "released"
	StateDead     State = "dead" // failed for good
)

// History is what happened to one task.
type History struct {
	Stream string
	ID     string // "" when the publisher gave none, or no reserve of it is known
	Seq    uint64 // its last, if it was published anew under its id
	State  State
	Holder *Identity // who has it; nil when nobody has
	Epoch  uint64    // of the holder
	Since  time.Time // when it came into this state
	Until  time.Time // when its lease runs out, if it is not kept; zero when it has none, or that is not known
	Events []TaskEvent
}

// TaskEvent is what happened to one task at one time.
type TaskEvent struct {
	Kind    EventKind
	At      time.Time
	Worker  Identity
	Epoch   uint64
	Attempt int // of a reserve
	Reason  string
	Unsure  bool
}

// Holder is a worker that has, or had, tasks of a queue.
type Holder struct {
	Worker  Identity
	Epoch   uint64
	Holding int // tasks that it has
	Took    int // tasks that it ever had
	Done    int
	Failed  int
	First   time.Time
	Last    time.Time
}

// Events shows what happened to the tasks of a queue, "" for all queues, from a time on, the oldest first, until there is
// no more or show wants no more.
func (f *Fleet) Events(ctx context.Context, stream string, since time.Time, show func(*Event) (more bool)) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	if stream == "" {
		stream = ">"
	}
	from := uint64(1)
	var err error
	if !since.IsZero() {
		from, err = f.events.SeqAt(ctx, since)
	}
	if err == nil {
		more := true
		err = f.events.Each(ctx, f.cfg.Events+"."+stream, from, func(e *natslease.Entry) bool {
			readEvents(f.cfg.Events, e, func(event *Event) {
				if more && !event.At.Before(since) {
					more = show(event)
				}
			})
			return more
		})
	}
	if natslease.CodeOf(err) == natslease.CodeQueueNotFound {
		return nil // nothing has ever been recorded
	}
	return err
}

// histories collects what events say of tasks.
type histories struct {
	stream string
	bySeq  map[uint64]*History
	byID   map[string]*History
	all    []*History
}

func (h *histories) add(e *Event, wanted func(id string, seq uint64) bool) {
	for i, seq := range e.Seqs {
		t := h.bySeq[seq]
		if t == nil {
			id := ""
			if i < len(e.IDs) {
				id = e.IDs[i]
			}
			if !wanted(id, seq) {
				continue
			}
			if t = h.byID[id]; t == nil || id == "" {
				t = &History{Stream: h.stream, ID: id}
				h.all = append(h.all, t)
			}
			h.bySeq[seq] = t
			if id != "" {
				h.byID[id] = t
			}
		}
		if t.ID == "" && i < len(e.IDs) {
			t.ID = e.IDs[i]
		}
		t.Seq = seq
		happened := TaskEvent{Kind: e.Kind, At: e.At, Worker: e.Worker, Epoch: e.Epoch, Reason: e.Reason, Unsure: e.Unsure}
		if e.Kind == Reserved {
			happened.Attempt = 1
			if i < len(e.Attempts) {
				happened.Attempt = e.Attempts[i]
			}
		}
		t.Events = append(t.Events, happened)
		t.follow(e)
	}
}

// follow draws the consequences of an event.
func (t *History) follow(e *Event) {
	state := map[EventKind]State{
		Reserved: StateLeased, Extended: StateLeased, Acked: StateDone, Naked: StateFailed, Released: StateReleased, Termed: StateDead,
	}[e.Kind]
	if e.Kind == Extended && t.State == StateLeased {
		if e.AckWait > 0 {
			t.Until = e.At.Add(e.AckWait)
		}
		return
	}
	t.State, t.Since, t.Holder, t.Epoch, t.Until = state, e.At, nil, 0, time.Time{}
	if state == StateLeased {
		holder := e.Worker
		t.Holder, t.Epoch = &holder, e.Epoch
		if e.AckWait > 0 {
			t.Until = e.At.Add(e.AckWait)
		}
	}
}

// Histories tells what happened to the tasks of a queue, by their sequences; at most limit of them, the newest.
func (f *Fleet) Histories(ctx context.Context, stream string, limit int) ([]*History, error) {
	h, err := f.collect(ctx, stream, func(string, uint64) bool { return true })
	if err != nil {
		return nil, err
	}
	sort.SliceStable(h.all, func(i, j int) bool { return h.all[i].Seq < h.all[j].Seq })
	if limit > 0 && len(h.all) > limit {
		h.all = h.all[len(h.all)-limit:]
	}
	return h.all, nil
}

// Task tells what happened to one task, by its id or, where that is "", by its sequence; nil when nothing is known of it.
func (f *Fleet) Task(ctx context.Context, stream, id string, seq uint64) (*History, error) {
	h, err := f.collect(ctx, stream, func(other string, at uint64) bool {
		return id != "" && other == id || id == "" && at == seq
	})
	if err != nil || len(h.all) == 0 {
		return nil, err
	}
	return h.all[0], nil
}

func (f *Fleet) collect(ctx context.Context, stream string, wanted func(id string, seq uint64) bool) (*histories, error) {
	h := &histories{stream: stream, bySeq: make(map[uint64]*History), byID: make(map[string]*History)}
	if err := checkStream(stream); err != nil {
		return nil, err
	}
	now, err := f.now(ctx)
	if err != nil {
		return nil, err
	}
	err = f.Events(ctx, stream, time.Time{}, func(e *Event) bool {
		h.add(e, wanted)
		return true
	})
	for _, t := range h.all {
		if t.State == StateLeased && !t.Until.IsZero() && t.Until.Before(now) {
			t.State = StateExpired
		}
	}
	return h, err
}

// now is the server's time; the zero time when nothing has been recorded.
func (f *Fleet) now(ctx context.Context) (time.Time, error) {
	info, err := f.events.Info(ctx)
	if natslease.CodeOf(err) == natslease.CodeQueueNotFound {
		return time.Time{}, nil
	}
	return info.Told, err
}

func checkStream(name string) error {
	switch {
	case name == "":
		return refused(natslease.CodeConfig, "stream: is empty")
	case len(name) > 255:
		return refused(natslease.CodeConfig, "stream: is %d bytes long: at most 255 are allowed", len(name))
	}
	for _, r := range name {
		if r <= ' ' || r == '.' || r == '*' || r == '>' || r == '/' || r == '\\' || r == 0x7f {
			return refused(natslease.CodeConfig, "stream: %+q is no name of a stream", name)
		}
	}
	return nil
}

// Holders tells which workers have, or had, tasks of a queue, the latest first.
func (f *Fleet) Holders(ctx context.Context, stream string) ([]Holder, error) {
	all, err := f.Histories(ctx, stream, 0)
	if err != nil {
		return nil, err
	}
	found := make(map[taker]*Holder)
	of := func(e *TaskEvent) *Holder {
		who := taker{e.Worker, e.Epoch}
		h := found[who]
		if h == nil {
			h = &Holder{Worker: e.Worker, Epoch: e.Epoch, First: e.At}
			found[who] = h
		}
		if e.At.Before(h.First) {
			h.First = e.At
		}
		if e.At.After(h.Last) {
			h.Last = e.At
		}
		return h
	}
	for _, t := range all {
		took := make(map[*Holder]bool)
		for i := range t.Events {
			e := &t.Events[i]
			h := of(e)
			switch e.Kind {
			case Reserved:
				if !took[h] {
					h.Took++
				}
				took[h] = true
			case Acked:
				h.Done++
			case Naked, Termed:
				h.Failed++
			}
		}
		if t.Holder != nil {
			found[taker{*t.Holder, t.Epoch}].Holding++
		}
	}
	holders := make([]Holder, 0, len(found))
	for _, h := range found {
		holders = append(holders, *h)
	}
	sort.Slice(holders, func(i, j int) bool {
		a, b := &holders[i], &holders[j]
		switch {
		case !a.Last.Equal(b.Last):
			return a.Last.After(b.Last)
		case a.Worker != b.Worker:
			return a.Worker.less(b.Worker)
		}
		return a.Epoch < b.Epoch
	})
	return holders, nil
}
