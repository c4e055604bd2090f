package pybind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/RolnickLab/natslease/core/fleet"
)

var (
	fleets  table[*fleet.Fleet]
	members table[*fleet.Member]
)

// leaveTimeout bounds the end of a fleet or of a member that nobody waits for.
const leaveTimeout = 2 * time.Second

// fleetOptions has the fields of fleet.Config under their Python names.
type fleetOptions struct {
	Bucket    string        `json:"bucket"`
	Events    string        `json:"events"`
	Heartbeat time.Duration `json:"heartbeat"`
	Keep      time.Duration `json:"keep"`
	MaxBytes  int64         `json:"max_bytes"`
	OnlineFor time.Duration `json:"online_for"`
	Replicas  int           `json:"replicas"`
	StaleFor  time.Duration `json:"stale_for"`
}

// OpenFleet makes the fleet of the client behind the handle. It does no I/O.
func OpenFleet(handle, client int64, config []byte) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.get(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	var o fleetOptions
	if err := json.Unmarshal(config, &o); err != nil {
		return encodeError(err)
	}
	f, err := fleet.New(c, fleet.Config(o))
	if err != nil {
		return encodeError(pythonNames(err))
	}
	fleets.put(handle, f)
	return []byte{answerDone}
}

// ForgetFleet ends the handle of a fleet, and returns it. What is recorded is still written; nobody waits for that.
func ForgetFleet(handle int64) int64 {
	if f, ok := fleets.remove(handle); ok {
		unattended(f.Close)
	}
	return handle
}

// ForgetMember ends the handle of a member, and returns it. The member leaves; nobody waits for that.
func ForgetMember(handle int64) int64 {
	if m, ok := members.remove(handle); ok {
		unattended(func(ctx context.Context) { _ = m.Leave(ctx) })
	}
	return handle
}

// unattended runs what nobody waits for, but a client that is closed.
func unattended(do func(ctx context.Context)) {
	detached.begin()
	go func() {
		defer detached.end()
		defer func() { _ = recover() }()
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		defer cancel()
		do(ctx)
	}()
}

// fleetRequest is what is asked of a fleet. Which fields are of use depends on Ask.
type fleetRequest struct {
	Ask      string        `json:"ask"`
	Worker   workerPlace   `json:"worker"`
	Epoch    uint64        `json:"epoch"`
	Details  *details      `json:"details"`
	Reason   string        `json:"reason"`
	Stream   string        `json:"stream"`
	ID       string        `json:"id"`
	Seq      uint64        `json:"seq"`
	Since    float64       `json:"since"` // seconds since 1970
	Limit    int           `json:"limit"`
	Pattern  string        `json:"pattern"`
	Wanted   []string      `json:"wanted"`
	MinAge   time.Duration `json:"min_age"`
	DryRun   bool          `json:"dry_run"`
	Kind     string        `json:"kind"`
	Subjects []string      `json:"subjects"`
	IDs      []string      `json:"ids"`
}

type workerPlace struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	Slot    string `json:"slot"`
}

type details struct {
	Version string            `json:"version"`
	Address string            `json:"address"`
	Info    map[string]string `json:"info"`
}

func (r *fleetRequest) details() fleet.Details {
	if r.Details == nil {
		return fleet.Details{}
	}
	return fleet.Details(*r.Details)
}

var errUnknownAsk = errors.New("a fleet cannot be asked that")

// asked reads what the fleet or member behind a handle is asked, and has it answered.
func asked[T any](of *table[T], kind string, handle int64, request []byte, answer func(v T, r *fleetRequest) []byte) []byte {
	v, ok := of.get(handle)
	if !ok {
		return encodeError(unknownHandle(kind, handle))
	}
	var r fleetRequest
	if json.Unmarshal(request, &r) != nil {
		return encodeError(errMalformed)
	}
	return answer(v, &r)
}

// AskFleet asks a fleet something: it takes a request and returns a value.
func AskFleet(ticket, timeout, slice, notifier, handle int64, request []byte) (answer []byte) {
	defer rescue(&answer)
	return asked(&fleets, "fleet", handle, request, func(f *fleet.Fleet, r *fleetRequest) []byte {
		ask, ok := fleetAsks[r.Ask]
		if !ok {
			return encodeError(fmt.Errorf("%w: %s", errUnknownAsk, r.Ask))
		}
		return run(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func()) {
			return value(ask(ctx, f, r))
		})
	})
}

var fleetAsks = map[string]func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error){
	"ensure": func(ctx context.Context, f *fleet.Fleet, _ *fleetRequest) (any, error) { return nil, f.Ensure(ctx) },
	"register": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		registration, err := f.Register(ctx, fleet.Identity(r.Worker), r.details())
		return describeRegistration(registration), err
	},
	"renew": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		return nil, f.Renew(ctx, fleet.Identity(r.Worker), r.Epoch, (*fleet.Details)(r.Details))
	},
	"seen": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		return nil, f.Seen(ctx, fleet.Identity(r.Worker), r.details())
	},
	"leave": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		return nil, f.Leave(ctx, fleet.Identity(r.Worker), r.Epoch)
	},
	"stop": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		return f.Stop(ctx, fleet.Identity(r.Worker), r.Reason)
	},
	"allow": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		return f.Allow(ctx, fleet.Identity(r.Worker))
	},
	"workers": func(ctx context.Context, f *fleet.Fleet, _ *fleetRequest) (any, error) {
		workers, err := f.Workers(ctx)
		return describeWorkers(workers), err
	},
	"holders": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		holders, err := f.Holders(ctx, r.Stream)
		return describeHolders(holders), err
	},
	"task": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		h, err := f.Task(ctx, r.Stream, r.ID, r.Seq)
		if h == nil {
			return nil, err
		}
		return describeHistory(h), err
	},
	"history": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		all, err := f.Histories(ctx, r.Stream, r.Limit)
		return describeHistories(all), err
	},
	"events": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		events := []fleetEvent{}
		since := time.Time{}
		if r.Since > 0 {
			since = time.Unix(0, int64(r.Since*1e9))
		}
		err := f.Events(ctx, r.Stream, since, func(e *fleet.Event) bool {
			events = append(events, describeEvent(e))
			return len(events) < r.Limit
		})
		return events, err
	},
	"flush": func(ctx context.Context, f *fleet.Fleet, _ *fleetRequest) (any, error) {
		f.Flush(ctx)
		written, dropped := f.Stats()
		return []uint64{written, dropped}, nil
	},
	"sweep": func(ctx context.Context, f *fleet.Fleet, r *fleetRequest) (any, error) {
		report, err := f.Sweep(ctx, fleet.Sweep{DryRun: r.DryRun, Keep: r.Wanted, Limit: r.Limit, MinAge: r.MinAge, Pattern: r.Pattern})
		return describeSweep(report), err
	},
}

// RecordFleet has a fleet write down what a worker has got or done: it takes a request. It does no I/O.
func RecordFleet(handle int64, request []byte) (answer []byte) {
	defer rescue(&answer)
	return asked(&fleets, "fleet", handle, request, func(f *fleet.Fleet, r *fleetRequest) []byte {
		event := fleet.Event{
			Kind: fleet.EventKind(r.Kind), Worker: fleet.Identity(r.Worker), Epoch: r.Epoch, IDs: r.IDs, Reason: r.Reason,
		}
		return ended(f.Record(event, r.Subjects))
	})
}

// JoinFleet makes this process a worker: it takes a request, puts the member behind its handle, and returns its epoch. It
// leaves again unless the answer is taken.
func JoinFleet(ticket, timeout, slice, notifier, handle, member int64, request []byte) (answer []byte) {
	defer rescue(&answer)
	return asked(&fleets, "fleet", handle, request, func(f *fleet.Fleet, r *fleetRequest) []byte {
		return run(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func()) {
			m, err := f.Join(ctx, fleet.Identity(r.Worker), r.details())
			if err != nil {
				return encodeError(err), nil
			}
			members.put(member, m)
			return encodeNumber(int64(m.Epoch())), func() { ForgetMember(member) }
		})
	})
}

// LeaveFleet ends a membership. Its handle ends at once.
func LeaveFleet(ticket, timeout, slice, notifier, member int64) (answer []byte) {
	defer rescue(&answer)
	m, ok := members.remove(member)
	if !ok {
		return []byte{answerDone} // it has left before
	}
	return run(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func()) {
		return ended(m.Leave(ctx)), nil
	})
}

// UpdateMember changes what a member tells of itself: it takes a request.
func UpdateMember(ticket, timeout, slice, notifier, member int64, request []byte) (answer []byte) {
	defer rescue(&answer)
	return asked(&members, "member", member, request, func(m *fleet.Member, r *fleetRequest) []byte {
		return run(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func()) {
			return ended(m.Update(ctx, r.details())), nil
		})
	})
}

// MemberSuperseded returns done while a member has its place, as far as is known here, or why it has not. It does no I/O.
func MemberSuperseded(member int64) (answer []byte) {
	defer rescue(&answer)
	m, ok := members.get(member)
	if !ok {
		return encodeError(unknownHandle("member", member))
	}
	return ended(m.Superseded())
}
