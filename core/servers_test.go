package natslease

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServersAreWrittenOutInFull(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"nats://host:4223":     "nats://host:4223",
		"host":                 "nats://host:4222",
		" host:1 ":             "nats://host:1",
		"tls://host":           "tls://host:4222",
		"nats://host/":         "nats://host:4222",
		"ws://host":            "ws://host:80",
		"wss://host/nats?a=b":  "wss://host:443/nats?a=b",
		"nats://[::1]":         "nats://[::1]:4222",
		"nats://[fe80::1%25e]": "nats://[fe80::1%25e]:4222",
		"NATS://host":          "nats://host:4222",
		"127.0.0.1:65535":      "nats://127.0.0.1:65535",
	} {
		c, err := Config{Servers: []string{given}}.withDefaults()
		require.NoError(t, err, given)
		require.Equal(t, []string{want}, c.Servers)
	}
	c, err := Config{Servers: []string{"a,b", "c"}}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, []string{"nats://a:4222", "nats://b:4222", "nats://c:4222"}, c.Servers)
}

func TestServersRefused(t *testing.T) {
	t.Parallel()
	for _, given := range []string{
		"", " ", "a,", "http://host", "redis://host", "nats://", "nats://:4222", "nats://host:port", "nats://host:0",
		"nats://host:65536", "nats://host:-1", "nats://host:99999999999999999999", "nats://ho st", "nats://host\r\nPUB",
		"nats://host/path", "nats://host?x=y", "wss://host#f", "://host", "nats://[::1", "nats://%zz", "nats://\x00",
	} {
		_, err := Config{Servers: []string{given}}.withDefaults()
		requireProblems(t, err, "Servers[0]")
	}
}

func TestServersRefusedWithoutTheirPassword(t *testing.T) {
	t.Parallel()
	for _, given := range []string{
		"nats://user:hunter2@host:port", "nats://user:hun/ter2@host", "nats://user:hunter2%@host", "http://user:hunter2@host",
		"user:hunter2@", "nats://user:hunter2@/path", "wss://host?token=hunter2#f", "nats://hunter2@host:0",
		"nats://user:hun ter2@host", "nats://user:hun@ter2@host:x", "nats://user:hun?ter2@host",
	} {
		_, err := Config{Servers: []string{given}}.withDefaults()
		requireProblems(t, err, "Servers[0]")
		require.NotContains(t, err.Error(), "ter2")
		require.NotContains(t, err.Error(), "hun")
	}
}

func TestServersCredentialsAreMoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config                Config
		user, password, token string
	}{
		"user":              {config: Config{Servers: []string{"nats://u:p%40%2F@h"}}, user: "u", password: "p@/"},
		"token":             {config: Config{Servers: []string{"nats://t%40@h"}}, token: "t@"},
		"no scheme":         {config: Config{Servers: []string{"u:p@h"}}, user: "u", password: "p"},
		"one of two":        {config: Config{Servers: []string{"u:p@h", "i"}}, user: "u", password: "p"},
		"the same in both":  {config: Config{Servers: []string{"u:p@h", "u:p@i"}}, user: "u", password: "p"},
		"the same as User":  {config: Config{Servers: []string{"u:p@h"}, User: "u", Password: "p"}, user: "u", password: "p"},
		"user beside both":  {config: Config{Servers: []string{"u@h"}, User: "u", Password: "p"}, user: "u", password: "p"},
		"the same as Token": {config: Config{Servers: []string{"t@h"}, Token: "t"}, token: "t"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := c.config.withDefaults()
			require.NoError(t, err)
			require.Equal(t, []string{c.user, c.password, c.token}, []string{got.User, got.Password, got.Token})
			require.NotContains(t, strings.Join(got.Servers, " "), "@")
		})
	}
}

func TestServersCredentialsConflict(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Servers: []string{"u:p@h"}, User: "v", Password: "p"},
		{Servers: []string{"u:p@h"}, User: "u", Password: "q"},
		{Servers: []string{"t@h"}, Token: "s"},
	} {
		_, err := c.withDefaults()
		requireProblems(t, err, "Servers")
	}
	_, err := Config{Servers: []string{"u:p@h"}, Token: "t"}.withDefaults()
	requireProblems(t, err, "Token, User")
}
