package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// Details are what a worker tells of itself.
type Details struct {
	Version string            `json:"version,omitempty"`
	Address string            `json:"address,omitempty"`
	Info    map[string]string `json:"info,omitempty"`
}

// record is what the bucket has of a worker, in JSON.
type record struct {
	Identity
	Details
	Epoch     uint64      `json:"epoch,omitempty"`     // 0 in the first record, whose revision it is
	Joined    time.Time   `json:"joined,omitzero"`     // zero in the first record, which was stored then
	Fencings  []time.Time `json:"fencings,omitempty"`  // of the last minute, by the server's clock
	Process   *process    `json:"process,omitempty"`   // nil when another process speaks for the worker
	Anonymous bool        `json:"anonymous,omitempty"` // of an old version: it cannot be fenced
	Left      bool        `json:"left,omitempty"`
	Stopped   string      `json:"stopped,omitempty"` // why an operator has stopped it
	Holding   holding     `json:"holding,omitempty"` // leases by stream; of a worker that has a Process

	revision uint64
	stored   time.Time
}

// holding is how many leases a worker has, by stream.
type holding map[string]int

func readRecord(e *natslease.Entry) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(e.Data, r); err != nil {
		return nil, refused(natslease.CodeServer, "the record %s could not be read: %s", e.Subject, err)
	}
	r.revision, r.stored = e.Seq, e.Stored
	if r.Epoch == 0 {
		r.Epoch, r.Joined = e.Seq, e.Stored
	}
	return r, nil
}

func (r *record) encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return data
}

// String names the worker for an error.
func (r *record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d", r.Epoch)
	if r.Process != nil {
		fmt.Fprintf(&b, ", process %d", r.Process.PID)
	}
	if r.Version != "" {
		fmt.Fprintf(&b, ", version %s", r.Version)
	}
	if r.Address != "" {
		fmt.Fprintf(&b, ", from %s", r.Address)
	}
	return b.String()
}

// process identifies a process among those of its host, also after its number was given to another.
type process struct {
	Host    string `json:"host"` // DefaultHost, whatever the identity says
	PID     int    `json:"pid"`
	Started string `json:"started"` // in clock ticks since the machine was started
}

func thisProcess() *process {
	return &process{Host: DefaultHost(), PID: os.Getpid(), Started: startOf(os.Getpid())}
}

// gone tells whether the process was one of this host and has ended.
func (p *process) gone() bool {
	return p != nil && p.Host == DefaultHost() && p.Started != "" && startOf(p.PID) != p.Started
}

// startOf is when a process was started; "" when there is none, or that cannot be known.
func startOf(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name of the program, in parentheses, may have anything in it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start || fields[state] == "Z" {
		return ""
	}
	return fields[start]
}
