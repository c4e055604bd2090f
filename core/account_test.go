package natslease_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestAccount(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "images"})
	publish(t, b.queue, 5)
	info, err := b.client.Account(within(t, patience))
	require.NoError(t, err)
	assert.Equal(t, 1, info.Streams)
	assert.Equal(t, 1, info.Consumers)
	assert.Positive(t, info.Storage)
	assert.Zero(t, info.Memory)
	assert.Positive(t, info.API.Total)
	assert.EqualValues(t, -1, info.Limits.MaxStorage)
	assert.Equal(t, -1, info.Limits.MaxStreams)
}

func TestAccountWithoutJetStream(t *testing.T) {
	t.Parallel()
	client := connectTo(t, natstest.Start(t, natstest.WithoutJetStream()).URL())
	_, err := client.Account(within(t, patience))
	assert.Equal(t, natslease.CodeQueueUnavailable, natslease.CodeOf(err))
}
