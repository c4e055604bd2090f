//go:build linux

package natslease_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// A client that is closed while its server is frozen leaves nothing of its session behind, which has half a megabyte.
// The test is not parallel because it weighs the heap.
func TestPromise1DeadlineLeavesNoSessionBehind(t *testing.T) {
	const warm, rounds = 2, 10
	p := natstest.StartProcess(t, natstest.Newest)
	var before, after runtime.MemStats
	for i := range warm + rounds {
		c, err := natslease.New(natslease.Config{Servers: []string{p.URL()}, Name: t.Name()})
		require.NoError(t, err)
		q := existing(t, c, natslease.QueueConfig{})
		p.Freeze()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		require.Error(t, calls["reserve any"](ctx, c, q))
		_, err = q.Reserve(ctx, 1, 0)
		require.Error(t, err)
		cancel()
		p.Thaw()
		require.NoError(t, c.Close(within(t, patience)))
		if i == warm-1 {
			weigh(&before)
		}
	}
	weigh(&after)
	require.Less(t, after.HeapAlloc, before.HeapAlloc+rounds/2<<19)
}

func weigh(m *runtime.MemStats) {
	for range 3 { // what a cleanup lets go of goes one round later
		runtime.GC()
	}
	runtime.ReadMemStats(m)
}
