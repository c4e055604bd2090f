package natslease

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// connectWith opens a plain connection with nothing but the options under test.
func connectWith(t *testing.T, c Config) (*nats.Conn, error) {
	t.Helper()
	c, err := c.withDefaults()
	require.NoError(t, err)
	options, err := c.natsOptions()
	require.NoError(t, err)
	nc, err := nats.Connect(c.Servers[0], options...)
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

func writeFile(t *testing.T, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

func certificateFiles(t *testing.T) (ca, cert, key string) {
	t.Helper()
	authority := natstest.NewCA(t)
	return authority.CertFile, authority.ClientCertFile, authority.ClientKeyFile
}

func TestAuthAgainstServers(t *testing.T) {
	t.Parallel()
	seed, public := natstest.NewUserKey(t)
	otherSeed, _ := natstest.NewUserKey(t)
	operator, creds := natstest.Operator(t)
	_, otherCreds := natstest.Operator(t)
	for name, c := range map[string]struct {
		option      natstest.Option
		good, wrong Config
	}{
		"user":             {natstest.User("u", "p"), Config{User: "u", Password: "p"}, Config{User: "u", Password: "q"}},
		"token":            {natstest.Token("t"), Config{Token: "t"}, Config{Token: "u"}},
		"nkey":             {natstest.NKey(public), Config{NKeySeed: seed}, Config{NKeySeed: otherSeed}},
		"nkey with break":  {natstest.NKey(public), Config{NKeySeed: seed + "\n"}, Config{}},
		"credentials":      {operator, Config{Credentials: creds}, Config{Credentials: otherCreds}},
		"credentials file": {operator, Config{CredentialsFile: writeFile(t, creds)}, Config{CredentialsFile: writeFile(t, otherCreds)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, c.option)
			c.good.Servers, c.wrong.Servers = []string{s.URL()}, []string{s.URL()}
			c.good.Name = "the name"
			nc, err := connectWith(t, c.good)
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			connz, err := s.Embedded().Connz(nil)
			require.NoError(t, err)
			require.Equal(t, "the name", connz.Conns[0].Name)
			_, err = connectWith(t, c.wrong)
			require.ErrorIs(t, err, nats.ErrAuthorization)
		})
	}
}

func TestAuthInboxPrefix(t *testing.T) {
	t.Parallel()
	nc, err := connectWith(t, Config{Servers: []string{natstest.Start(t).URL()}, InboxPrefix: "my.inbox"})
	require.NoError(t, err)
	require.Regexp(t, `^my\.inbox\.`, nc.NewInbox())
}

func TestAuthReadsTheCredentialsFileAnew(t *testing.T) {
	t.Parallel()
	_, creds := natstest.Operator(t)
	path := writeFile(t, creds)
	c, err := Config{CredentialsFile: path}.withDefaults()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("damaged: SU"), 0o600))
	_, err = c.natsOptions()
	requireProblems(t, err, "CredentialsFile")
	require.NoError(t, os.Remove(path))
	_, err = c.natsOptions()
	requireProblems(t, err, "CredentialsFile")
}

func TestAuthFindsDamagedCredentials(t *testing.T) {
	t.Parallel()
	_, creds := natstest.Operator(t)
	account, err := nkeys.CreateAccount()
	require.NoError(t, err)
	accountSeed, err := account.Seed()
	require.NoError(t, err)
	seed, public := natstest.NewUserKey(t)
	for name, c := range map[string]Config{
		"only a JWT":       {Credentials: creds[:len(creds)/2]},
		"a bare seed":      {Credentials: seed},
		"a file of spaces": {CredentialsFile: writeFile(t, "  \n")},
		"a directory":      {CredentialsFile: t.TempDir()},
		"account's seed":   {NKeySeed: string(accountSeed)},
		"public key":       {NKeySeed: public},
		"shortened seed":   {NKeySeed: seed[:len(seed)-1]},
	} {
		_, err := c.withDefaults()
		require.Equal(t, CodeConfig, CodeOf(err), name)
		require.NotContains(t, err.Error(), seed[:20], name)
		require.NotContains(t, err.Error(), string(accountSeed[:20]), name)
	}
}
