package natstest

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	t.Cleanup(cancel)
	return ctx
}

// stored publishes one message to a new stream and returns what the stream then holds.
func stored(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	ctx := testContext(t)
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "kept", Subjects: []string{"kept"}})
	require.NoError(t, err)
	_, err = js.Publish(ctx, "kept", []byte("x"))
	require.NoError(t, err)
	info, err := stream.Info(ctx)
	require.NoError(t, err)
	return info.State.Msgs
}

func TestServerRestartKeepsPortAndData(t *testing.T) {
	t.Parallel()
	s := Start(t)
	require.Equal(t, uint64(1), stored(t, JetStream(t, s.URL())))
	url := s.URL()
	s.Restart()
	require.Equal(t, url, s.URL())
	require.Equal(t, uint64(2), stored(t, JetStream(t, s.URL())))
}

func TestServerCountsConnections(t *testing.T) {
	t.Parallel()
	s := Start(t)
	require.Zero(t, s.Connections())
	nc := Connect(t, s.URL())
	require.NoError(t, nc.Flush())
	require.Equal(t, 1, s.Connections())
	require.Equal(t, uint64(1), s.TotalConnections())
}

func TestServerLameDuckTellsClients(t *testing.T) {
	t.Parallel()
	s := Start(t)
	told := make(chan struct{})
	Connect(t, s.URL(), nats.LameDuckModeHandler(func(*nats.Conn) { close(told) }), nats.MaxReconnects(0))
	s.LameDuck()
	<-told
}

func TestServerAuth(t *testing.T) {
	t.Parallel()
	seed, public := NewUserKey(t)
	pair, err := nkeys.FromSeed([]byte(seed))
	require.NoError(t, err)
	operator, creds := Operator(t)
	for name, c := range map[string]struct {
		option Option
		client nats.Option
	}{
		"user":  {User("u", "p"), nats.UserInfo("u", "p")},
		"users": {Users(&server.User{Username: "u", Password: "p"}), nats.UserInfo("u", "p")},
		"token": {Token("t"), nats.Token("t")},
		"nkey":  {NKey(public), nats.Nkey(public, pair.Sign)},
		"creds": {operator, nats.UserCredentialBytes([]byte(creds))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, c.option)
			_, err := nats.Connect(s.URL())
			require.ErrorIs(t, err, nats.ErrAuthorization)
			require.Equal(t, uint64(1), stored(t, JetStream(t, s.URL(), c.client)))
		})
	}
}

func TestServerTLS(t *testing.T) {
	t.Parallel()
	ca := NewCA(t)
	for name, c := range map[string]struct {
		option Option
		client []nats.Option
	}{
		"server": {TLS(ca, false), []nats.Option{nats.RootCAs(ca.CertFile)}},
		"mutual": {TLS(ca, true), []nats.Option{nats.RootCAs(ca.CertFile), nats.ClientCert(ca.ClientCertFile, ca.ClientKeyFile)}},
		"first":  {TLSFirst(ca), []nats.Option{nats.Secure(ca.ClientConfig()), nats.TLSHandshakeFirst()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, c.option)
			_, err := nats.Connect(s.URL(), nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}), nats.Timeout(time.Second))
			require.Error(t, err)
			Connect(t, s.URL(), c.client...)
		})
	}
}

func TestServerOptions(t *testing.T) {
	t.Parallel()
	s := Start(t, MaxPayload(100), WithoutJetStream(), WebSocket())
	nc := Connect(t, s.WebSocketURL())
	require.Equal(t, int64(100), nc.MaxPayload())
	require.False(t, s.Embedded().JetStreamEnabled())

	limited := Start(t, StoreLimit(1000))
	_, err := JetStream(t, limited.URL()).CreateStream(testContext(t), jetstream.StreamConfig{Name: "big", MaxBytes: 2000})
	require.Error(t, err)
}

func TestCAWritesFiles(t *testing.T) {
	t.Parallel()
	ca := NewCA(t)
	for _, path := range []string{ca.CertFile, ca.ClientCertFile, ca.ClientKeyFile} {
		require.True(t, filepath.IsAbs(path))
		contents, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(contents), "-----BEGIN ")
	}
}
