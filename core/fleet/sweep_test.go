package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/fleet"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Start(t).URL(), fleet.Config{})
	require.NoError(t, s.Ensure(within(t, patience)))
	for _, name := range []string{"job_1", "job_2", "job_3", "job_4", "images"} {
		q, err := s.client.Queue(natslease.QueueConfig{Stream: name})
		require.NoError(t, err)
		_, err = q.Ensure(within(t, patience), natslease.ConflictError)
		require.NoError(t, err)
	}
	sweep := func(o fleet.Sweep) (orphans []string, r fleet.SweepReport) {
		r, err := s.Sweep(within(t, patience), o)
		require.NoError(t, err)
		for _, info := range r.Orphans {
			orphans = append(orphans, info.Name)
		}
		return orphans, r
	}
	orphans, _ := sweep(fleet.Sweep{Pattern: "job_*", MinAge: time.Hour, Limit: 10})
	assert.Empty(t, orphans, "they are young")

	orphans, r := sweep(fleet.Sweep{Pattern: "*", Keep: []string{"job_2"}, Limit: 10, DryRun: true})
	assert.Equal(t, []string{"job_1", "job_3", "job_4", "images"}, orphans, "never the fleet's own")
	assert.Empty(t, r.Deleted)

	orphans, r = sweep(fleet.Sweep{Pattern: "job_*", Keep: []string{"job_2"}, Limit: 2})
	assert.Equal(t, []string{"job_1", "job_3"}, orphans)
	assert.Equal(t, orphans, r.Deleted)
	assert.True(t, r.More)
	_, r = sweep(fleet.Sweep{Pattern: "job_*", Keep: []string{"job_2"}, Limit: 2})
	assert.Equal(t, []string{"job_4"}, r.Deleted)
	assert.False(t, r.More)
	left, err := s.client.Streams(within(t, patience), natslease.StreamFilter{})
	require.NoError(t, err)
	assert.Len(t, left.Streams, 4) // job_2, images, and the fleet's two

	for _, wrong := range []fleet.Sweep{{Limit: 1}, {Pattern: "*"}, {Pattern: "*", Limit: 1, MinAge: -1}, {Pattern: "[", Limit: 1}} {
		_, err := s.Sweep(within(t, patience), wrong)
		assert.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	}
}
