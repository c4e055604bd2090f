package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStatusFollowsTheLastSignOfLife(t *testing.T) {
	t.Parallel()
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	f := &Fleet{cfg: cfg}
	now := time.Now()
	for age, want := range map[time.Duration]Status{
		0: Online, time.Minute: Online, time.Minute + 1: Stale, time.Hour: Stale, time.Hour + 1: Offline,
	} {
		assert.Equal(t, want, f.status(&record{stored: now.Add(-age)}, now), age)
	}
	assert.Equal(t, Offline, f.status(&record{stored: now, Left: true}, now))
	assert.Equal(t, Offline, f.status(&record{stored: now, Stopped: "x"}, now))
}
