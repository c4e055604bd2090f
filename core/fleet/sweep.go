package fleet

import (
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// Sweep says which queues are orphans, and what is done with them.
type Sweep struct {
	// DryRun has them only listed.
	DryRun bool

	// Keep are the names of streams that are wanted.
	Keep []string

	// Limit is how many are deleted at most. It is required.
	Limit int

	// MinAge is how long ago a stream must have been made, and its newest message stored, for it to be an orphan: what
	// was made after Keep was written down is not in it.
	MinAge time.Duration

	// Pattern is what the names of the streams look like; see natslease.StreamFilter. It is required.
	Pattern string
}

// SweepReport is what Sweep found and did.
type SweepReport struct {
	Orphans []natslease.StreamInfo // at most Limit of them, the oldest
	Deleted []string
	Failed  map[string]*natslease.Error
	More    bool // there are more than Limit
}

// Sweep deletes the queues that nobody wants any more.
func (f *Fleet) Sweep(ctx context.Context, s Sweep) (SweepReport, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	switch {
	case s.Pattern == "":
		return SweepReport{}, refused(natslease.CodeConfig, "pattern: is empty: name what may be swept")
	case s.Limit < 1:
		return SweepReport{}, refused(natslease.CodeConfig, "limit: is %d: it must be positive", s.Limit)
	case s.MinAge < 0:
		return SweepReport{}, refused(natslease.CodeConfig, "min_age: is %s: it must not be negative", s.MinAge)
	}
	list, err := f.client.Streams(ctx, natslease.StreamFilter{Pattern: s.Pattern})
	if err != nil {
		return SweepReport{}, err
	}
	orphans := slices.DeleteFunc(list.Streams, func(info natslease.StreamInfo) bool { return !f.isOrphan(&s, &info) })
	sort.SliceStable(orphans, func(i, j int) bool { return orphans[i].Created.Before(orphans[j].Created) })
	report := SweepReport{Orphans: orphans, More: len(orphans) > s.Limit}
	if report.More {
		report.Orphans = orphans[:s.Limit]
	}
	if s.DryRun {
		return report, nil
	}
	for i := range report.Orphans {
		name := report.Orphans[i].Name
		// It may have come to life since: that is looked at once more, just before.
		deleted, err := f.deleteOrphan(ctx, &s, name)
		var e *natslease.Error
		switch {
		case errors.As(err, &e):
			if report.Failed == nil {
				report.Failed = make(map[string]*natslease.Error)
			}
			report.Failed[name] = e
		case deleted:
			report.Deleted = append(report.Deleted, name)
		}
	}
	return report, nil
}

// isOrphan never says so of the fleet's own streams.
func (f *Fleet) isOrphan(s *Sweep, info *natslease.StreamInfo) bool {
	return !slices.Contains(s.Keep, info.Name) && info.Name != f.cfg.Events && info.Name != "KV_"+f.cfg.Bucket &&
		info.Told.Sub(info.Created) >= s.MinAge && (info.Last.IsZero() || info.Told.Sub(info.Last) >= s.MinAge)
}

func (f *Fleet) deleteOrphan(ctx context.Context, s *Sweep, name string) (bool, error) {
	stream, err := f.client.Stream(natslease.StreamConfig{Name: name, Subjects: []string{">"}})
	if err != nil {
		return false, err
	}
	info, err := stream.Info(ctx)
	switch {
	case natslease.CodeOf(err) == natslease.CodeQueueNotFound:
		return false, nil
	case err != nil:
		return false, err
	case !f.isOrphan(s, &info):
		return false, nil
	}
	deleted, err := f.client.DeleteStream(ctx, name)
	if deleted {
		f.client.Logger().Info("orphan queue deleted", "stream", name, "messages", info.Messages)
	}
	return deleted, err
}
