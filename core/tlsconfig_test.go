package natslease

import (
	"crypto/x509"
	"os"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestTLSAgainstServers(t *testing.T) {
	t.Parallel()
	ca := natstest.NewCA(t)
	named := natstest.NewCA(t, "nats.example.org")
	mutual := TLSConfig{CAFile: ca.CertFile, CertFile: ca.ClientCertFile, KeyFile: ca.ClientKeyFile}
	for name, c := range map[string]struct {
		option natstest.Option
		tls    TLSConfig
	}{
		"authority":   {natstest.TLS(ca, false), TLSConfig{CAFile: ca.CertFile}},
		"mutual":      {natstest.TLS(ca, true), mutual},
		"server name": {natstest.TLS(named, false), TLSConfig{CAFile: named.CertFile, ServerName: "nats.example.org"}},
		"first":       {natstest.TLSFirst(ca), TLSConfig{CAFile: ca.CertFile, First: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, c.option)
			nc, err := connectWith(t, Config{Servers: []string{s.URL()}, TLS: c.tls})
			require.NoError(t, err)
			state, err := nc.TLSConnectionState()
			require.NoError(t, err)
			require.True(t, state.HandshakeComplete)
		})
	}
}

func TestTLSRefusesServers(t *testing.T) {
	t.Parallel()
	ca, other := natstest.NewCA(t), natstest.NewCA(t)
	s := natstest.Start(t, natstest.TLS(ca, false))
	_, err := connectWith(t, Config{Servers: []string{s.URL()}, TLS: TLSConfig{CAFile: other.CertFile}})
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
	_, err = connectWith(t, Config{Servers: []string{s.URL()}, TLS: TLSConfig{CAFile: ca.CertFile, ServerName: "another.example.org"}})
	var wrongName x509.HostnameError
	require.ErrorAs(t, err, &wrongName)
	// TLS options demand TLS: a server without it is not talked to in clear.
	plain := natstest.Start(t)
	_, err = connectWith(t, Config{Servers: []string{plain.URL()}, TLS: TLSConfig{CAFile: ca.CertFile}})
	require.ErrorIs(t, err, nats.ErrSecureConnWanted)
}

func TestTLSFilesAreCheckedAndReadAnew(t *testing.T) {
	t.Parallel()
	ca := natstest.NewCA(t)
	other := natstest.NewCA(t)
	_, err := Config{TLS: TLSConfig{CAFile: writeFile(t, "no PEM"), CertFile: ca.ClientCertFile, KeyFile: other.ClientKeyFile}}.withDefaults()
	requireProblems(t, err, "TLS.CAFile", "TLS.CertFile")

	c, err := Config{TLS: TLSConfig{CAFile: ca.CertFile}}.withDefaults()
	require.NoError(t, err)
	require.NoError(t, os.Remove(ca.CertFile))
	_, err = c.natsOptions()
	requireProblems(t, err, "TLS.CAFile")
}
