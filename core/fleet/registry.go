package fleet

import (
	"context"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

const (
	// maxFencings within fencingSpan are what one place takes: then nobody is fenced there for a while.
	maxFencings = 3
	fencingSpan = time.Minute
	// hearing is how long the older worker is given to hear of the newer one, before that begins.
	hearing = 20 * time.Millisecond
	// maxRenewed bounds what is remembered of other processes' workers.
	maxRenewed = 10_000
)

// Registration is a worker's right to its place.
type Registration struct {
	Identity Identity
	Epoch    uint64  // of this registration: a larger one fences it
	Fenced   *Worker // which it has fenced, if any
	revision uint64
	fencings []time.Time
}

// key is the subject of a record in the bucket.
func (f *Fleet) key(key string) string { return "$KV." + f.cfg.Bucket + "." + key }

// last reads a worker's record; nil when there is none.
func (f *Fleet) last(ctx context.Context, id Identity) (*record, error) {
	e, err := f.bucket.Last(ctx, f.key(id.key()))
	if natslease.CodeOf(err) == natslease.CodeQueueNotFound {
		return nil, nil // no worker has ever registered
	}
	if err != nil || e == nil || len(e.Data) == 0 { // somebody may have deleted the key with another client
		return nil, err
	}
	return readRecord(e)
}

// write stores a record in the place of one of the given revision, and creates the bucket if need be.
func (f *Fleet) write(ctx context.Context, r *record, after uint64) (uint64, error) {
	entry := natslease.Entry{Subject: f.key(r.key()), Data: r.encode()}
	seq, err := f.bucket.AppendAfter(ctx, entry, after)
	if natslease.CodeOf(err) != natslease.CodeQueueNotFound {
		return seq, err
	}
	if err := f.bucket.Ensure(ctx); err != nil { // events find their own way, or none
		return 0, err
	}
	return f.bucket.AppendAfter(ctx, entry, after)
}

// change reads a worker's record, has it changed, and writes it, again and again until nobody else was faster. The change
// may be a failure, or none (nil, nil).
func (f *Fleet) change(ctx context.Context, id Identity, how func(now *record) (*record, error)) (*record, uint64, error) {
	if err := id.check(); err != nil {
		return nil, 0, err
	}
	for {
		now, err := f.last(ctx, id)
		if err != nil {
			return nil, 0, err
		}
		next, err := how(now)
		if err != nil || next == nil {
			return nil, 0, err
		}
		after := uint64(0)
		if now != nil {
			after = now.revision
		}
		seq, err := f.write(ctx, next, after)
		if natslease.CodeOf(err) != natslease.CodeConflict {
			return next, seq, err
		}
	}
}

// Register gives a worker its place, and fences the one that has it. After three fencings within a minute nobody is
// fenced there until that minute is over, and Register fails with CodeSuperseded and RetryAfter: two supervisors would
// restart their workers against each other for ever.
func (f *Fleet) Register(ctx context.Context, id Identity, details Details) (Registration, error) {
	return f.register(ctx, id, details, nil)
}

func (f *Fleet) register(ctx context.Context, id Identity, details Details, p *process) (Registration, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	var fenced *record
	var fencedAt time.Time
	next, epoch, err := f.change(ctx, id, func(now *record) (*record, error) {
		next := &record{Identity: id, Details: details, Process: p}
		fenced = nil
		if now == nil {
			return next, nil
		}
		info, err := f.bucket.Info(ctx)
		if err != nil {
			return nil, err
		}
		for _, at := range now.Fencings {
			if info.Told.Sub(at) < fencingSpan {
				next.Fencings = append(next.Fencings, at)
			}
		}
		if f.status(now, info.Told) != Online || now.Process.gone() {
			return next, nil
		}
		if len(next.Fencings) >= maxFencings {
			e := refused(natslease.CodeSuperseded,
				"%s is held by %s, which was seen %s ago, and is not given to another (%s): %d workers were fenced there within a "+
					"minute, so two seem to be started against each other", id, now, info.Told.Sub(now.stored).Round(time.Second), next, len(next.Fencings))
			e.RetryAfter = max(fencingSpan-info.Told.Sub(next.Fencings[0]), time.Second)
			e.Operation = "register"
			f.client.Logger().Error("fencing stopped", "place", id.String(), "holder", now.String(), "newcomer", next.String())
			return nil, e
		}
		next.Fencings = append(next.Fencings, info.Told)
		fenced, fencedAt = now, info.Told
		return next, nil
	})
	if err != nil {
		return Registration{}, err
	}
	r := Registration{Identity: id, Epoch: epoch, revision: epoch, fencings: next.Fencings}
	if fenced != nil {
		w := f.describe(fenced, fencedAt)
		r.Fenced = &w
		time.Sleep(hearing)
		f.client.Logger().Warn("worker fenced", "place", id.String(), "older", fenced.String(), "newer", epoch)
	}
	return r, nil
}

// Renew is a sign of life of a registered worker that another process speaks for. It reads the record, and writes it when
// this process has not done so for half a heartbeat. It fails with CodeSuperseded when the worker was fenced, or stopped.
func (f *Fleet) Renew(ctx context.Context, id Identity, epoch uint64, details *Details) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	if epoch == 0 {
		return refused(natslease.CodeConfig, "epoch: is 0: register first")
	}
	next, _, err := f.change(ctx, id, func(now *record) (*record, error) {
		if err := superseded(id, epoch, now); err != nil {
			return nil, err
		}
		if now != nil && !now.Left && details == nil && f.isRenewed(id, epoch) {
			return nil, nil
		}
		next := &record{Identity: id, Epoch: epoch}
		if now != nil {
			copied := *now
			next = &copied
			next.Left = false
		}
		if details != nil {
			next.Details = *details
		}
		return next, nil
	})
	if err == nil && next != nil {
		f.noteRenewal(id, epoch)
	}
	return err
}

// Seen is a sign of life of a worker of an old version, which cannot be fenced. It fails with CodeSuperseded when an
// operator has stopped it.
func (f *Fleet) Seen(ctx context.Context, id Identity, details Details) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	next, _, err := f.change(ctx, id, func(now *record) (*record, error) {
		if now != nil && now.Stopped != "" {
			return nil, stopped(id, now)
		}
		if now != nil && f.isRenewed(id, 0) {
			return nil, nil
		}
		next := &record{Identity: id, Details: details, Anonymous: true}
		if now != nil {
			next.Epoch, next.Joined = now.Epoch, now.Joined
		}
		return next, nil
	})
	if err == nil && next != nil {
		f.noteRenewal(id, 0)
	}
	return err
}

// Leave says that a worker has ended: it is offline from then on.
func (f *Fleet) Leave(ctx context.Context, id Identity, epoch uint64) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	_, _, err := f.change(ctx, id, func(now *record) (*record, error) {
		if now == nil || now.Epoch != epoch {
			return nil, nil // there is a newer one
		}
		next := *now
		next.Left, next.Holding = true, nil
		return &next, nil
	})
	return err
}

// Stop has a worker's next call fail with CodeSuperseded, until one registers there anew (or, for an old version, until
// Allow). It returns false when there is no such worker.
func (f *Fleet) Stop(ctx context.Context, id Identity, reason string) (bool, error) {
	if reason == "" {
		reason = "no reason was given"
	}
	return f.setStopped(ctx, id, reason)
}

// Allow takes Stop back.
func (f *Fleet) Allow(ctx context.Context, id Identity) (bool, error) {
	return f.setStopped(ctx, id, "")
}

func (f *Fleet) setStopped(ctx context.Context, id Identity, reason string) (bool, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	next, _, err := f.change(ctx, id, func(now *record) (*record, error) {
		if now == nil {
			return nil, nil
		}
		next := *now
		next.Stopped = reason
		return &next, nil
	})
	if next != nil {
		time.Sleep(hearing)
	}
	return next != nil, err
}

// superseded is why a worker may not go on; nil when it may.
func superseded(id Identity, epoch uint64, now *record) error {
	switch {
	case now == nil || now.Epoch < epoch && now.Stopped == "":
		return nil // the record was lost
	case now.Epoch != epoch:
		e := refused(natslease.CodeSuperseded, "a newer worker has the place %s since %s (%s): this one has epoch %d",
			id, now.Joined.UTC().Format(time.RFC3339), now, epoch)
		e.Operation = "renew"
		return e
	case now.Stopped != "":
		return stopped(id, now)
	}
	return nil
}

func stopped(id Identity, now *record) error {
	e := refused(natslease.CodeSuperseded, "an operator has stopped %s: %s", id, now.Stopped)
	e.Operation = "renew"
	return e
}

func (f *Fleet) isRenewed(id Identity, epoch uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.renewed[id.key()]
	return ok && last.epoch == epoch && time.Since(last.at) < f.cfg.Heartbeat/2
}

func (f *Fleet) noteRenewal(id Identity, epoch uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.renewed) >= maxRenewed {
		clear(f.renewed) // they are written once more
	}
	f.renewed[id.key()] = renewal{epoch, time.Now()}
}

// within gives a call the client's timeout as a whole, unless it has one: it makes several requests.
func (f *Fleet) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, f.client.Timeout())
}
