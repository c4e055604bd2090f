package pybind

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock is one moment on the clocks of Go and of Python, to carry other moments across: Go does not tell what its
// monotonic clock shows.
type clock struct {
	now       time.Time
	wall      int64 // nanoseconds since 1970
	monotonic int64 // nanoseconds of CLOCK_MONOTONIC, which is Python's time.monotonic_ns
}

func readClock() clock {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail for this clock
	now := time.Now()
	return clock{now: now, wall: now.UnixNano(), monotonic: t.Nano()}
}

// encode is t of CLOCK_MONOTONIC; 0 for the zero time.
func (c clock) encode(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return c.monotonic + int64(t.Sub(c.now))
}

func (c clock) decode(monotonic int64) time.Time {
	if monotonic == 0 {
		return time.Time{}
	}
	return c.now.Add(time.Duration(monotonic - c.monotonic))
}
