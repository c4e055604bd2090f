package pybind

import (
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// In JSON, a field hides the one of the same name in what it is embedded beside: times are seconds for Python.

type queueInfo struct {
	natslease.QueueInfo
	StreamCreated float64 `json:"stream_created"` // since 1970
	AckWait       float64 `json:"ack_wait"`
}

func describeInfo(i natslease.QueueInfo) queueInfo {
	return queueInfo{i, seconds(i.StreamCreated), i.AckWait.Seconds()}
}

type streamInfo struct {
	natslease.StreamInfo
	Created   float64        `json:"created"`
	First     float64        `json:"first_at"`
	Last      float64        `json:"last_at"`
	Told      float64        `json:"told"`
	MaxAge    float64        `json:"max_age"`
	Consumers []consumerInfo `json:"consumers"`
}

type consumerInfo struct {
	natslease.ConsumerInfo
	Created float64 `json:"created"`
	AckWait float64 `json:"ack_wait"`
}

// streamList has names of streams in place of nil, which Python would see as None.
type streamList struct {
	Streams []streamInfo `json:"streams"`
	Missing []string     `json:"missing"`
}

func describeStreams(list natslease.StreamList) streamList {
	described := streamList{Streams: make([]streamInfo, len(list.Streams)), Missing: append([]string{}, list.Missing...)}
	for i, s := range list.Streams {
		d := streamInfo{
			StreamInfo: s, Created: seconds(s.Created), First: seconds(s.First), Last: seconds(s.Last), Told: seconds(s.Told),
			MaxAge: s.MaxAge.Seconds(), Consumers: make([]consumerInfo, len(s.Consumers)),
		}
		d.Subjects = append([]string{}, s.Subjects...)
		d.Away = append([]string{}, s.Away...)
		for j, c := range s.Consumers {
			c.Subjects = append([]string{}, c.Subjects...)
			c.Away = append([]string{}, c.Away...)
			d.Consumers[j] = consumerInfo{c, seconds(c.Created), c.AckWait.Seconds()}
		}
		described.Streams[i] = d
	}
	return described
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

type stats struct {
	natslease.Stats
	Breaker breakerStats `json:"breaker"`
}

type breakerStats struct {
	natslease.BreakerStats
	RetryAfter float64 `json:"retry_after"`
}

func describeStats(s natslease.Stats) stats {
	return stats{s, breakerStats{s.Breaker, s.Breaker.RetryAfter.Seconds()}}
}

// account has the fields of natslease.AccountInfo under their Python names.
type account struct {
	Memory       uint64 `json:"memory"`
	Storage      uint64 `json:"storage"`
	Streams      int    `json:"streams"`
	Consumers    int    `json:"consumers"`
	MaxMemory    int64  `json:"max_memory"`
	MaxStorage   int64  `json:"max_storage"`
	MaxStreams   int    `json:"max_streams"`
	MaxConsumers int    `json:"max_consumers"`
	APITotal     uint64 `json:"api_total"`
	APIErrors    uint64 `json:"api_errors"`
	Domain       string `json:"domain"`
}

func describeAccount(a natslease.AccountInfo) account {
	return account{
		Memory: a.Memory, Storage: a.Storage, Streams: a.Streams, Consumers: a.Consumers,
		MaxMemory: a.Limits.MaxMemory, MaxStorage: a.Limits.MaxStorage,
		MaxStreams: a.Limits.MaxStreams, MaxConsumers: a.Limits.MaxConsumers,
		APITotal: a.API.Total, APIErrors: a.API.Errors, Domain: a.Domain,
	}
}
