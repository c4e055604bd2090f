package pybind

import (
	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/fleet"
)

type fleetWorker struct {
	workerPlace
	details
	Epoch     uint64         `json:"epoch"`
	Status    fleet.Status   `json:"status"`
	LastSeen  float64        `json:"last_seen"`
	Joined    float64        `json:"joined_at"`
	Anonymous bool           `json:"anonymous"`
	Left      bool           `json:"left"`
	Stopped   string         `json:"stopped"`
	Holding   map[string]int `json:"holding"`
	Reserved  int            `json:"reserved"`
	Done      int            `json:"done"`
	Failed    int            `json:"failed"`
	Rate      float64        `json:"rate"`
	LastTask  string         `json:"last_task"`
}

func describeWorker(w *fleet.Worker) fleetWorker {
	return fleetWorker{
		workerPlace: workerPlace(w.Identity), details: details(w.Details), Epoch: w.Epoch, Status: w.Status,
		LastSeen: seconds(w.LastSeen), Joined: seconds(w.Joined), Anonymous: w.Anonymous, Left: w.Left, Stopped: w.Stopped,
		Holding: w.Holding, Reserved: w.Reserved, Done: w.Done, Failed: w.Failed, Rate: w.Rate, LastTask: w.LastTask,
	}
}

func describeWorkers(workers []fleet.Worker) []fleetWorker {
	described := make([]fleetWorker, len(workers))
	for i := range workers {
		described[i] = describeWorker(&workers[i])
	}
	return described
}

type fleetRegistration struct {
	Epoch  uint64       `json:"epoch"`
	Fenced *fleetWorker `json:"fenced"`
}

func describeRegistration(r fleet.Registration) fleetRegistration {
	described := fleetRegistration{Epoch: r.Epoch}
	if r.Fenced != nil {
		w := describeWorker(r.Fenced)
		described.Fenced = &w
	}
	return described
}

type fleetHolder struct {
	Worker  workerPlace `json:"worker"`
	Epoch   uint64      `json:"epoch"`
	Holding int         `json:"holding"`
	Took    int         `json:"took"`
	Done    int         `json:"done"`
	Failed  int         `json:"failed"`
	First   float64     `json:"first_at"`
	Last    float64     `json:"last_at"`
}

func describeHolders(holders []fleet.Holder) []fleetHolder {
	described := make([]fleetHolder, len(holders))
	for i, h := range holders {
		described[i] = fleetHolder{
			Worker: workerPlace(h.Worker), Epoch: h.Epoch, Holding: h.Holding, Took: h.Took, Done: h.Done, Failed: h.Failed,
			First: seconds(h.First), Last: seconds(h.Last),
		}
	}
	return described
}

type taskHistory struct {
	Stream string       `json:"stream"`
	ID     string       `json:"id"`
	Seq    uint64       `json:"seq"`
	State  fleet.State  `json:"state"`
	Holder *workerPlace `json:"holder"`
	Epoch  uint64       `json:"epoch"`
	Since  float64      `json:"since"`
	Until  float64      `json:"until"`
	Events []taskEvent  `json:"events"`
}

type taskEvent struct {
	Kind    fleet.EventKind `json:"kind"`
	At      float64         `json:"at"`
	Worker  workerPlace     `json:"worker"`
	Epoch   uint64          `json:"epoch"`
	Attempt int             `json:"attempt"`
	Reason  string          `json:"reason"`
	Unsure  bool            `json:"unsure"`
}

func describeHistory(h *fleet.History) taskHistory {
	described := taskHistory{
		Stream: h.Stream, ID: h.ID, Seq: h.Seq, State: h.State, Holder: (*workerPlace)(h.Holder), Epoch: h.Epoch,
		Since: seconds(h.Since), Until: seconds(h.Until), Events: make([]taskEvent, len(h.Events)),
	}
	for i, e := range h.Events {
		described.Events[i] = taskEvent{e.Kind, seconds(e.At), workerPlace(e.Worker), e.Epoch, e.Attempt, e.Reason, e.Unsure}
	}
	return described
}

func describeHistories(all []*fleet.History) []taskHistory {
	described := make([]taskHistory, len(all))
	for i, h := range all {
		described[i] = describeHistory(h)
	}
	return described
}

type fleetEvent struct {
	Kind     fleet.EventKind `json:"kind"`
	At       float64         `json:"at"`
	Worker   workerPlace     `json:"worker"`
	Epoch    uint64          `json:"epoch"`
	Stream   string          `json:"stream"`
	Consumer string          `json:"consumer"`
	Seqs     []uint64        `json:"seqs"`
	IDs      []string        `json:"ids"`
	Reason   string          `json:"reason"`
	Unsure   bool            `json:"unsure"`
}

func describeEvent(e *fleet.Event) fleetEvent {
	return fleetEvent{
		Kind: e.Kind, At: seconds(e.At), Worker: workerPlace(e.Worker), Epoch: e.Epoch, Stream: e.Stream, Consumer: e.Consumer,
		Seqs: e.Seqs, IDs: append([]string{}, e.IDs...), Reason: e.Reason, Unsure: e.Unsure,
	}
}

type sweepReport struct {
	Orphans []streamInfo         `json:"orphans"`
	Deleted []string             `json:"deleted"`
	Failed  map[string]errorText `json:"failed"`
	More    bool                 `json:"more"`
}

func describeSweep(r fleet.SweepReport) sweepReport {
	described := sweepReport{
		Orphans: describeStreams(natslease.StreamList{Streams: r.Orphans}).Streams, Deleted: append([]string{}, r.Deleted...),
		Failed: make(map[string]errorText), More: r.More,
	}
	for name, err := range r.Failed {
		described.Failed[name] = describe(err)
	}
	return described
}
