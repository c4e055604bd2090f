package fleet

import (
	"context"
	"sort"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// Status is whether a worker is there, by the server's clock.
type Status string

// A worker is online while its last sign of life is not older than Config.OnlineFor, then stale, and offline after
// Config.StaleFor, or when it has left, was stopped, or its process is known to have ended.
const (
	Online  Status = "online"
	Stale   Status = "stale"
	Offline Status = "offline"
)

// Worker is what is known of a worker.
type Worker struct {
	Identity
	Details
	Epoch     uint64
	Status    Status
	LastSeen  time.Time
	Joined    time.Time
	Anonymous bool   // of an old version: it cannot be fenced
	Left      bool   // it has ended as it should
	Stopped   string // why an operator has stopped it

	// From the events of the last activitySpan.
	Holding  map[string]int // leases by stream
	Reserved int
	Done     int
	Failed   int
	Rate     float64 // done per second in the last minute
	LastTask string
}

const (
	// activitySpan is how far back Workers looks for what they do.
	activitySpan = 15 * time.Minute
	// maxActivity bounds how many messages it reads for that.
	maxActivity = 20_000
	rateSpan    = time.Minute
)

func (f *Fleet) status(r *record, now time.Time) Status {
	age := now.Sub(r.stored)
	switch {
	case r.Left || r.Stopped != "" || age > f.cfg.StaleFor:
		return Offline
	case age > f.cfg.OnlineFor:
		return Stale
	}
	return Online
}

func (f *Fleet) describe(r *record, now time.Time) Worker {
	return Worker{
		Identity: r.Identity, Details: r.Details, Epoch: r.Epoch, Status: f.status(r, now), LastSeen: r.stored, Joined: r.Joined,
		Anonymous: r.Anonymous, Left: r.Left, Stopped: r.Stopped, Holding: make(map[string]int),
	}
}

// Workers lists the workers of the last Config.Keep, by service, host and slot, with what they do.
func (f *Fleet) Workers(ctx context.Context) ([]Worker, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	info, err := f.bucket.Info(ctx)
	if natslease.CodeOf(err) == natslease.CodeQueueNotFound {
		return nil, nil // no worker has ever registered
	}
	if err != nil {
		return nil, err
	}
	var workers []Worker
	holds := make(map[taker]holding)
	places := make(map[Identity]int)
	err = f.bucket.Each(ctx, f.key(">"), 1, func(e *natslease.Entry) bool {
		r, err := readRecord(e)
		if err != nil || len(e.Data) == 0 {
			return true // written by somebody else: it is no worker
		}
		if i, ok := places[r.Identity]; ok { // it was renewed while this one was read
			workers[i] = f.describe(r, info.Told)
		} else {
			places[r.Identity] = len(workers)
			workers = append(workers, f.describe(r, info.Told))
		}
		if r.Process != nil {
			holds[taker{r.Identity, r.Epoch}] = r.Holding
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	doing, err := f.activity(ctx, info.Told)
	if err != nil {
		return nil, err
	}
	for i := range workers {
		w := &workers[i]
		who := taker{w.Identity, w.Epoch}
		if a := doing[who]; a != nil {
			w.Reserved, w.Done, w.Failed, w.LastTask = a.reserved, a.done, a.failed, a.lastTask
			w.Rate = float64(a.lately) / rateSpan.Seconds()
			for _, stream := range a.held {
				w.Holding[stream]++
			}
		}
		own, ok := holds[who]
		if a := doing[who]; ok && w.Status == Online && (a == nil || !a.last.After(w.LastSeen)) {
			clear(w.Holding) // it knows better, also what it took longer ago, unless it has done something since
			for stream, n := range own {
				w.Holding[stream] = n
			}
		}
		if w.Status == Offline {
			clear(w.Holding)
		}
	}
	sort.Slice(workers, func(i, j int) bool { return workers[i].less(workers[j].Identity) })
	return workers, nil
}

// activity is what one worker did lately.
type activity struct {
	reserved, done, failed, lately int
	lastTask                       string
	last                           time.Time          // when it last did anything
	held                           map[taskKey]string // streams of the tasks that it has
}

type taskKey struct {
	stream string
	seq    uint64
}

func (f *Fleet) activity(ctx context.Context, now time.Time) (map[taker]*activity, error) {
	doing := make(map[taker]*activity)
	from, err := f.events.SeqAt(ctx, now.Add(-activitySpan))
	if natslease.CodeOf(err) == natslease.CodeQueueNotFound {
		return doing, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.events.Info(ctx)
	if err != nil {
		return nil, err
	}
	if info.LastSeq > maxActivity {
		from = max(from, info.LastSeq-maxActivity+1)
	}
	err = f.events.Each(ctx, f.cfg.Events+".>", from, func(e *natslease.Entry) bool {
		readEvents(f.cfg.Events, e, func(event *Event) {
			who := taker{event.Worker, event.Epoch}
			a := doing[who]
			if a == nil {
				a = &activity{held: make(map[taskKey]string)}
				doing[who] = a
			}
			a.add(event, now)
		})
		return true
	})
	return doing, err
}

func (a *activity) add(e *Event, now time.Time) {
	if e.At.After(a.last) {
		a.last = e.At
	}
	for i, seq := range e.Seqs {
		key := taskKey{e.Stream, seq}
		switch e.Kind {
		case Reserved:
			a.reserved++
			a.held[key] = e.Stream
			a.lastTask = e.taskName(i)
		case Extended:
		default:
			delete(a.held, key)
		}
		switch e.Kind {
		case Acked:
			a.done++
			if now.Sub(e.At) < rateSpan {
				a.lately++
			}
		case Naked, Termed:
			a.failed++
		}
	}
}
