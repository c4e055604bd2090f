package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// originAge is how long it is remembered when a stream was created.
const originAge = 5 * time.Second

// clockSkew is by how much the clocks of a cluster's servers may differ: one writes down when a stream was created, another
// when a task was published.
const clockSkew = 2 * time.Second

// origin is when the stream was created, and until when that is believed; zero when the server would not say.
type origin struct{ created, until time.Time }

// isForeign says whether it is a lease of which only the ack subject is known. It may be of any age.
func (i *SettleItem) isForeign() bool { return i.Lease == nil && i.Expires.IsZero() }

// refuseOlder ends the foreign leases that are of an earlier stream of this name, and returns the indices of the rest. The
// server knows a task by its number, and a stream that was made anew counts from 1 again: it would settle another task.
func (f *feed) refuseOlder(ctx context.Context, c *settleCall, todo []int) []int {
	if !slices.ContainsFunc(todo, func(i int) bool { return c.items[i].isForeign() }) {
		return todo
	}
	created, err := f.createdAt(ctx)
	return slices.DeleteFunc(todo, func(i int) bool {
		if !c.items[i].isForeign() {
			return false
		}
		if err != nil {
			c.fail(i, Unknown, asOperation(c.operation, err).unsent())
			return true
		}
		ack, _ := ParseAckSubject(c.items[i].AckSubject)
		if !ack.Published.Before(created.Add(-clockSkew)) {
			return false
		}
		c.fail(i, Gone, newError(CodeLeaseGone, OutcomeRejected, "its queue was deleted, and one of the same name was made"))
		return true
	})
}

// createdAt returns when the stream was created; zero when it does not exist, when the server would not say, and for a
// mirror, whose tasks are older than itself.
func (f *feed) createdAt(ctx context.Context) (time.Time, error) {
	f.mu.Lock()
	known := f.origin
	f.mu.Unlock()
	asked := time.Now()
	if asked.Before(known.until) {
		return known.created, nil
	}
	var info streamInfo
	var config struct {
		Mirror json.RawMessage `json:"mirror"`
	}
	failure, err := f.hub.api(ctx, "STREAM.INFO."+f.stream, nil, &info)
	told := origin{created: info.Created, until: asked.Add(originAge)}
	switch {
	case CodeOf(err) == CodePermissionDenied:
		told = origin{until: asked.Add(factsAge)}
	case err != nil:
		return time.Time{}, err
	case failure != nil:
		return time.Time{}, nil // what does not exist is for the server to say
	case json.Unmarshal(info.Config, &config) == nil && config.Mirror != nil:
		told.created = time.Time{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.origin = told
	return told.created, nil
}

// forgetOrigin is for when this process has deleted or made the stream.
func (f *feed) forgetOrigin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.origin = origin{}
}
