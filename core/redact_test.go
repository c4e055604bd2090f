package natslease

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestRedactURL(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"nats://host:4222":             "nats://host:4222",
		"nats://user:pass@host:4222":   "nats://***@host:4222",
		"nats://token@host":            "nats://***@host",
		"user:pass@host":               "***@host",
		"nats://user:p@ss@host":        "nats://***@host",
		"nats://user:p/ss@host":        "nats://***@host",
		"wss://host/path?access=token": "wss://host/path?***",
		"":                             "",
	} {
		require.Equal(t, want, redactURL(given))
	}
}

// A secret in use is hidden wherever it stands, until its last connection is gone.
func TestRedactSecretsInUse(t *testing.T) {
	t.Parallel()
	const text = "no good: correct horse, battery/staple or tok"
	cfg := &Config{Password: "correct horse", Token: "tok", Servers: []string{"nats://u:battery%2Fstaple@host"}}
	secretsInUse.add(cfg)
	secretsInUse.add(cfg)
	secretsInUse.remove(cfg)
	require.Equal(t, "no good: ***, *** or tok", redactText(text))
	secretsInUse.remove(cfg)
	require.Equal(t, text, redactText(text))
}

func TestRedactError(t *testing.T) {
	t.Parallel()
	seed, _ := natstest.NewUserKey(t)
	_, creds := natstest.Operator(t)
	_, token, _ := strings.Cut(creds, "-----\n")
	token, _, _ = strings.Cut(token, "\n")
	for text, want := range map[string]string{
		`parse "nats://u:p@ss@h:x": invalid port`:            `parse "nats://***@h:x": invalid port`,
		"dial nats://h:1: refused, then nats://t@i: refused": "dial nats://h:1: refused, then nats://***@i: refused",
		"bad seed " + seed + "!":                             "bad seed ***!",
		"jwt " + token:                                       "jwt ***",
		"in " + creds + " after":                             "in *** after",
		"cut off " + creds[:len(creds)-60]:                   "cut off ***",
		`CONNECT {"user":"u","pass":"a \"b\" c","name":"n"}`: `CONNECT {"user":"u","pass":"***","name":"n"}`,
		`{"auth_token": "t", "sig":"abc`:                     `{"auth_token": "***", "sig":"***"`,
		"host=h password=hunter2 port=1":                     "host=h password=*** port=1",
		"nats: Authorization Violation":                      "nats: Authorization Violation",
		`nats: invalid token "x" in SELECT`:                  `nats: invalid token "x" in SELECT`,
	} {
		got := redactError(errors.New(text))
		if strings.Contains(text, "-----BEGIN") {
			require.NotContains(t, got, seed)
			require.NotContains(t, got, token[:30])
			require.NotRegexp(t, `SU[A-Z2-7]{10}`, got)
			continue
		}
		require.Equal(t, want, got)
	}
	require.Empty(t, redactError(nil))
}

func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	seed, _ := natstest.NewUserKey(t)
	c := Config{
		ConnectTimeout: time.Second, Credentials: "hunter2creds", CredentialsFile: "/etc/nats.creds", Dialer: defaultDialer,
		Domain: "hub", InboxPrefix: "in", Name: "me", NKeySeed: seed, Password: "hunter2password",
		Servers: []string{"nats://u:hunter2url@host"}, SilenceTimeout: time.Second, Timeout: time.Second,
		TLS: TLSConfig{CAFile: "/etc/ca.pem"}, Token: "hunter2token", User: "somebody",
	}
	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		texts = append(texts, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, []Config{c}),
			fmt.Sprintf(verb, struct{ C Config }{c}))
	}
	texts = append(texts, c.String(), c.GoString(), fmt.Sprint(c.LogValue()))
	marshaled, err := json.Marshal(map[string]any{"config": c, "pointer": &c})
	require.NoError(t, err)
	texts = append(texts, string(marshaled))
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "config", c, "pointer", &c, "inside", []Config{c})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "config", c, "pointer", &c, "inside", []Config{c})
	texts = append(texts, log.String())
	for _, text := range texts {
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, fmt.Sprintf("%x", "hunter2"))
		require.NotContains(t, text, seed)
		for _, shown := range []string{"host", "somebody", "/etc/nats.creds", "/etc/ca.pem", "hub"} {
			require.Contains(t, text, shown)
		}
	}
	require.Equal(t, "natslease.Config{}", Config{}.String())
}
