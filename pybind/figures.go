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
