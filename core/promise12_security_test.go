package natslease_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// With JWT accounts: credentials of the operator's open a queue, those of another operator are refused as such, and a
// file that is corrected serves the next call.
func TestPromise12CredentialsOfAccounts(t *testing.T) {
	t.Parallel()
	operator, creds := natstest.Operator(t)
	_, strangers := natstest.Operator(t)
	s := natstest.Start(t, operator)
	path := filepath.Join(t.TempDir(), "user.creds")
	require.NoError(t, os.WriteFile(path, []byte(strangers), 0o600))
	for name, cfg := range map[string]natslease.Config{
		"file":     {CredentialsFile: path},
		"contents": {Credentials: strangers},
		"none":     {},
	} {
		cfg.Servers, cfg.Name = []string{s.URL()}, t.Name()+name
		_, err := newClient(t, cfg).Ping(within(t, patience))
		requireCode(t, err, natslease.CodeAuthentication, natslease.OutcomeNotSent)
	}
	c := newClient(t, natslease.Config{Servers: []string{s.URL()}, CredentialsFile: path})
	_, err := c.Ping(within(t, patience))
	requireCode(t, err, natslease.CodeAuthentication, natslease.OutcomeNotSent)
	require.NoError(t, os.WriteFile(path, []byte(creds), 0o600))
	for _, c := range []*natslease.Client{c, newClient(t, natslease.Config{Servers: []string{s.URL()}, Credentials: creds})} {
		q := existing(t, c, natslease.QueueConfig{Stream: "jobs"})
		publish(t, q, 1)
		require.NoError(t, reserve(t, q, 1)[0].Ack(within(t, patience)))
	}
}
