package natslease

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// The connection fails while the last message of a round is written: the round is over once.
func TestPublishRoundWhoseLastWriteFails(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Servers: []string{natstest.Start(t).URL()}, Name: t.Name()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	defer func() { require.NoError(t, c.Close(ctx)) }()
	for _, messages := range []int{1, 3} {
		s, err := c.hub.session(ctx)
		require.NoError(t, err)
		call := &publishCall{messages: make([]outgoing, messages), results: make([]PublishResult, messages), maybe: make([]bool, messages)}
		todo := make([]int, messages)
		for i := range todo {
			todo[i] = i
			call.messages[i].subject = "jobs"
		}
		s.wire.mu.Lock()
		s.wire.fail(errors.New("broken"))
		s.wire.mu.Unlock()
		r := call.newRound(s, todo)
		r.run(ctx)
		require.ElementsMatch(t, todo, r.again)
		for _, result := range call.results {
			require.Equal(t, CodeConnectionLost, CodeOf(result.Err))
			require.Equal(t, OutcomeNotSent, result.Err.Outcome)
		}
		<-s.ended
	}
}
