package natslease

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireProblems checks that err is one *Error that names each of the options, and nothing besides.
func requireProblems(t *testing.T, err error, options ...string) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, CodeConfig, e.Code)
	require.Equal(t, OutcomeRejected, e.Outcome)
	var named []string
	for problem := range strings.SplitSeq(e.Message, "; ") {
		option, text, ok := strings.Cut(problem, ": ")
		require.True(t, ok, problem)
		require.NotEmpty(t, text)
		named = append(named, option)
	}
	require.ElementsMatch(t, options, named, e.Message)
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := Config{}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, c.ConnectTimeout)
	require.Equal(t, 5*time.Second, c.Timeout)
	require.Equal(t, 500*time.Millisecond, c.SilenceTimeout)
	require.Equal(t, "_INBOX", c.InboxPrefix)
	require.Equal(t, []string{"nats://localhost:4222"}, c.Servers)
	require.NotNil(t, c.Dialer)
	require.NotNil(t, c.Logger)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, filepath.Base(os.Args[0])+" "+host+" "+strconv.Itoa(os.Getpid()), c.Name)

	again, err := c.withDefaults()
	require.NoError(t, err)
	require.Equal(t, c, again)
}

func TestConfigChangesOnlyItsCopy(t *testing.T) {
	t.Parallel()
	servers := []string{"u:p@one", "two"}
	_, err := Config{Servers: servers}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, []string{"u:p@one", "two"}, servers)
}

func TestConfigReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Config{
		ConnectTimeout: -time.Second,
		Domain:         "a.b",
		InboxPrefix:    "in.*.box",
		Name:           "two\nlines",
		NKeySeed:       "SUNOSEED",
		Password:       "alone",
		Servers:        []string{"http://host", "", "nats://host:0"},
		SilenceTimeout: 1,
		Timeout:        -1,
		TLS:            TLSConfig{CAFile: "/missing/ca.pem", CertFile: "cert.pem", ServerName: "a b"},
	}.withDefaults()
	requireProblems(t, err, "ConnectTimeout", "Domain", "InboxPrefix", "Name", "Servers[0]", "Servers[1]", "Servers[2]",
		"SilenceTimeout", "Timeout", "NKeySeed, User", "NKeySeed", "User", "TLS.KeyFile", "TLS.ServerName", "TLS.CAFile")
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config  Config
		options []string
	}{
		"empty list of servers":         {Config{Servers: []string{}}, []string{"Servers"}},
		"prefix with a final dot":       {Config{InboxPrefix: "inbox."}, []string{"InboxPrefix"}},
		"prefix with a space":           {Config{InboxPrefix: "in box"}, []string{"InboxPrefix"}},
		"prefix with a full wildcard":   {Config{InboxPrefix: "inbox.>"}, []string{"InboxPrefix"}},
		"prefix that is long":           {Config{InboxPrefix: strings.Repeat("x", 256)}, []string{"InboxPrefix"}},
		"domain with a wildcard":        {Config{Domain: "*"}, []string{"Domain"}},
		"domain with a line break":      {Config{Domain: "a\r\nPUB"}, []string{"Domain"}},
		"name that is no UTF-8":         {Config{Name: "\xff"}, []string{"Name"}},
		"timeout in nanoseconds":        {Config{Timeout: 5}, []string{"Timeout"}},
		"user without password":         {Config{User: "u"}, []string{"Password"}},
		"token and user":                {Config{Token: "t", User: "u", Password: "p"}, []string{"Token, User"}},
		"missing credentials file":      {Config{CredentialsFile: "/missing"}, []string{"CredentialsFile"}},
		"credentials that are none":     {Config{Credentials: "x"}, []string{"Credentials"}},
		"key without certificate":       {Config{TLS: TLSConfig{KeyFile: "k"}}, []string{"TLS.CertFile"}},
		"certificate that is missing":   {Config{TLS: TLSConfig{CertFile: "/missing", KeyFile: "/missing"}}, []string{"TLS.CertFile"}},
		"TLS for ws":                    {Config{Servers: []string{"ws://h"}, TLS: TLSConfig{ServerName: "h"}}, []string{"TLS"}},
		"TLS first for wss":             {Config{Servers: []string{"wss://h"}, TLS: TLSConfig{First: true}}, []string{"TLS.First"}},
		"websockets and other servers":  {Config{Servers: []string{"wss://h", "tls://h"}}, []string{"Servers"}},
		"different credentials in URLs": {Config{Servers: []string{"u:p@h", "u:q@h"}}, []string{"Servers"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.config.withDefaults()
			requireProblems(t, err, c.options...)
		})
	}
}

// dialerFunc is a dialer without identity.
type dialerFunc func()

func (dialerFunc) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, net.ErrClosed
}

func TestConfigKey(t *testing.T) {
	t.Parallel()
	key := func(c Config) string {
		c, err := c.withDefaults()
		require.NoError(t, err)
		return c.key()
	}
	ca, cert, certKey := certificateFiles(t)
	same := key(Config{Servers: []string{"a", "b"}, User: "u", Password: "a secret"})
	for name, c := range map[string]Config{
		"order of servers": {Servers: []string{"b", "a"}, User: "u", Password: "a secret"},
		"spelling of URLs": {Servers: []string{"nats://a:4222", "u:a%20secret@b"}},
		"Timeout":          {Servers: []string{"a", "b"}, User: "u", Password: "a secret", Timeout: time.Minute},
		"Logger":           {Servers: []string{"a", "b"}, User: "u", Password: "a secret", Logger: slog.Default()},
	} {
		require.Equal(t, same, key(c), name)
	}
	require.NotContains(t, same, "secret")

	d := &net.Dialer{}
	require.Equal(t, key(Config{Dialer: d}), key(Config{Dialer: d}))
	seen := map[string]string{same: "the first"}
	for name, c := range map[string]Config{
		"nothing":         {},
		"ConnectTimeout":  {ConnectTimeout: time.Second},
		"Dialer":          {Dialer: d},
		"another Dialer":  {Dialer: &net.Dialer{}},
		"function":        {Dialer: dialerFunc(func() {})},
		"same function":   {Dialer: dialerFunc(func() {})},
		"Domain":          {Domain: "x"},
		"InboxPrefix":     {InboxPrefix: "x"},
		"MaxInFlight":     {MaxInFlight: 1},
		"MaxQueueWait":    {MaxQueueWait: time.Minute},
		"Name":            {Name: "x"},
		"Password":        {User: "u", Password: "another"},
		"SilenceTimeout":  {SilenceTimeout: time.Second},
		"TLS.CAFile":      {TLS: TLSConfig{CAFile: ca}},
		"TLS.CertFile":    {TLS: TLSConfig{CertFile: cert, KeyFile: certKey}},
		"TLS.First":       {TLS: TLSConfig{First: true}},
		"TLS.ServerName":  {TLS: TLSConfig{ServerName: "x"}},
		"Token":           {Token: "x"},
		"one server":      {Servers: []string{"x"}},
		"several servers": {Servers: []string{"x", "y"}},
	} {
		k := key(c)
		require.Empty(t, seen[k], name)
		seen[k] = name
	}
}

func TestDefaultNameSurvivesStrangeHosts(t *testing.T) {
	t.Parallel()
	require.Empty(t, checkText(defaultName()))
}
