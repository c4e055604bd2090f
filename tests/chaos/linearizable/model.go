package main

import (
	"cmp"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// never is the end of what was not seen to end: it may take effect at any time after its beginning, or not at all.
const never = math.MaxInt64

// event is what one process did to one task. Times are in nanoseconds.
type event struct {
	Task  string `json:"task"`
	Kind  string `json:"kind"` // "publish", "reserve", "ack", "nak" (a release, too) or "drained"
	Begin int64  `json:"begin"`
	End   int64  `json:"end"` // 0: not seen
}

// outage is a server that was killed, or frozen: what had happened shortly before may be forgotten.
type outage struct {
	Begin int64 `json:"begin"`
	End   int64 `json:"end"`
}

// history is what happened in a run.
type history struct {
	AckWait   int64    `json:"ack_wait"`
	Forgotten int64    `json:"forgotten"` // how long before an outage a server may forget what it has answered
	Unheard   int64    `json:"unheard"`   // how long after its beginning something may happen whose end was not seen
	Outages   []outage `json:"outages"`
	Events    []event  `json:"events"`
}

// step is an operation of the model. Beside the events there are two that nobody reports: a lease that runs out, and a
// server that forgets.
type step struct {
	kind  string
	lease int // of a reserve, and of its running out
}

// task is a task in its queue: a register that is published once, held by one at a time, and done for ever.
type task struct {
	present bool
	done    bool
	lease   int // the lease that holds it; 0 for none
}

// model is a task. What has no answer, and what comes too late, changes something or nothing, but is always allowed; only
// a reserve and the empty queue at the end tell what the task's state has to be.
var model = porcupine.Model{
	Init: func() any { return task{} },
	Step: func(state, input, _ any) (bool, any) {
		t, s := state.(task), input.(step)
		switch s.kind {
		case "publish": // again, too: its id is known
			t.present = true
		case "reserve":
			if !t.present || t.done || t.lease != 0 {
				return false, t
			}
			t.lease = s.lease
		case "ack":
			t.done, t.lease = t.present, 0
		case "nak":
			t.lease = 0
		case "ran out":
			if t.lease == s.lease {
				t.lease = 0
			}
		case "forgotten":
			t.done, t.lease = false, 0
		case "drained":
			return !t.present || t.done, t
		default:
			return false, t
		}
		return true, t
	},
}

// operations are the events of one task and what could have happened beside them.
func (h *history) operations(events []event) []porcupine.Operation {
	var ops []porcupine.Operation
	add := func(s step, begin, end int64) {
		if end == 0 {
			end = never
		}
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: s, Call: begin, Return: end})
	}
	// What a lease or a server may have done by itself matters only to a reserve after it. Each such operation may be
	// anywhere or nowhere: more than needed would be tried for ever.
	last := int64(0)
	for _, e := range events {
		if e.Kind == "reserve" {
			last = max(last, e.End)
		}
	}
	perhaps := func(s step, begin int64) {
		if begin < last {
			add(s, begin, never)
		}
	}
	leases, forgotten := 0, make(map[outage]bool)
	for _, e := range events {
		s := step{kind: e.Kind}
		if e.Kind == "reserve" {
			leases++
			s.lease = leases
			perhaps(step{"ran out", leases}, e.Begin+h.AckWait)
		}
		add(s, e.Begin, e.End)
		if e.Kind != "reserve" && e.Kind != "ack" {
			continue
		}
		for _, o := range h.Outages {
			end := cmp.Or(e.End, e.Begin+h.Unheard)
			if end >= o.Begin-h.Forgotten && e.Begin <= o.End && !forgotten[o] {
				forgotten[o] = true
				perhaps(step{kind: "forgotten"}, o.Begin)
			}
		}
	}
	return ops
}

// check returns the tasks whose events no order explains, and the number of tasks.
func (h *history) check() (wrong []string, tasks int) {
	byTask := make(map[string][]event)
	for _, e := range h.Events {
		byTask[e.Task] = append(byTask[e.Task], e)
	}
	for id, events := range byTask {
		if !porcupine.CheckOperations(model, h.operations(events)) {
			wrong = append(wrong, id)
		}
	}
	slices.Sort(wrong)
	return wrong, len(byTask)
}
