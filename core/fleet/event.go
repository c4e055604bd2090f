package fleet

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// EventKind is what was done to tasks.
type EventKind string

// The kinds of events. Extended is of calls, not of what the keeper does.
const (
	Reserved EventKind = "reserve"
	Acked    EventKind = "ack"
	Naked    EventKind = "nak"
	Released EventKind = "release"
	Extended EventKind = "extend"
	Termed   EventKind = "term"
)

// Event is one reserve or settle batch.
type Event struct {
	Kind     EventKind
	At       time.Time // by the server's clock; where it is recorded, by this process's
	Worker   Identity
	Epoch    uint64
	Stream   string
	Consumer string
	Seqs     []uint64      // of the tasks, in their stream
	IDs      []string      // the publisher's, of a reserve; nil when they are not known
	Attempts []int         // of a reserve; nil when all are 1
	AckWait  time.Duration // of a reserve or an extension: how long the leases last; 0 when it is not known
	Reason   string        // of a nak or a term
	Unsure   bool          // of a settlement: the server's word did not come
}

// taskName is how task i is called in a text.
func (e *Event) taskName(i int) string {
	if i < len(e.IDs) && e.IDs[i] != "" {
		return e.IDs[i]
	}
	return "#" + strconv.FormatUint(e.Seqs[i], 10)
}

// taker is one registration of a worker.
type taker struct {
	Identity
	Epoch uint64
}

// eventMessage is a message of the stream: what one worker did with one queue's tasks in a moment.
type eventMessage struct {
	Worker  Identity     `json:"worker"`
	Epoch   uint64       `json:"epoch,omitempty"`
	Batches []eventBatch `json:"batches"`
}

type eventBatch struct {
	Kind     EventKind `json:"kind"`
	Age      int64     `json:"age,omitempty"` // milliseconds before the message was written
	Consumer string    `json:"consumer"`
	Seqs     []uint64  `json:"seqs"`
	IDs      []string  `json:"ids,omitempty"`
	Attempts []int     `json:"attempts,omitempty"`
	AckWait  int64     `json:"ack_wait,omitempty"` // milliseconds
	Reason   string    `json:"reason,omitempty"`
	Unsure   bool      `json:"unsure,omitempty"`
}

// readEvents shows the events of a message. What is no such message is passed over.
func readEvents(prefix string, e *natslease.Entry, show func(*Event)) {
	stream, ok := strings.CutPrefix(e.Subject, prefix+".")
	var m eventMessage
	if !ok || json.Unmarshal(e.Data, &m) != nil {
		return
	}
	for _, b := range m.Batches {
		show(&Event{
			Kind: b.Kind, At: e.Stored.Add(-time.Duration(b.Age) * time.Millisecond), Worker: m.Worker, Epoch: m.Epoch,
			Stream: stream, Consumer: b.Consumer, Seqs: b.Seqs, IDs: b.IDs, Attempts: b.Attempts,
			AckWait: time.Duration(b.AckWait) * time.Millisecond, Reason: b.Reason, Unsure: b.Unsure,
		})
	}
}
