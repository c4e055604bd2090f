//go:build !linux

package natslease

import (
	"sync/atomic"
	"time"
)

// Elsewhere the thread looks again after a while.
func sleepOn(_ *atomic.Uint32, d time.Duration) { time.Sleep(min(d, time.Millisecond)) }

func wakeOn(*atomic.Uint32) {}
