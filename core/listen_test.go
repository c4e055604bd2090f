package natslease_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestListen(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	c := connectTo(t, s.URL())
	heard := make(chan string, 10)
	l, err := c.Listen(within(t, patience), "news", func(data []byte) { heard <- string(data) })
	require.NoError(t, err)
	nc := natstest.Connect(t, s.URL())
	for _, text := range []string{"a", "b"} {
		require.NoError(t, nc.Publish("news", []byte(text)))
	}
	assert.Equal(t, "a", <-heard)
	assert.Equal(t, "b", <-heard)
	assert.True(t, l.Alive())
	s.Restart()
	require.Eventually(t, func() bool { return !l.Alive() }, patience, time.Millisecond, "its session has ended")
	l.Close()
}

func TestListenWhereItIsNotPermitted(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(&server.User{
		Username: "u", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "news"}}},
	}))
	c := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "u", Password: "p"})
	_, err := c.Listen(within(t, patience), "news", func([]byte) {})
	require.NoError(t, err)
	for range 20 { // nats.go tells of it in a moment of its own
		_, err = c.Listen(within(t, patience), "secrets", func([]byte) {})
		requireCode(t, err, natslease.CodePermissionDenied, natslease.OutcomeRejected)
	}
	_, err = c.Ping(within(t, patience))
	require.NoError(t, err)
	assert.EqualValues(t, 1, c.Stats().Generation, "the session goes on")
	_, err = c.Listen(within(t, patience), "news.*", func([]byte) {})
	requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
}
