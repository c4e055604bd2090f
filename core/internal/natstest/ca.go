package natstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA is a certificate authority made for one test, with its files.
type CA struct {
	CertFile       string // the authority's certificate
	ClientCertFile string
	ClientKeyFile  string

	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	server tls.Certificate
}

// NewCA makes an authority, a certificate for the server names (127.0.0.1 and localhost when none is given) and one for
// a client.
func NewCA(t testing.TB, names ...string) *CA {
	t.Helper()
	if len(names) == 0 {
		names = []string{"127.0.0.1", "localhost"}
	}
	dir := t.TempDir()
	ca := &CA{
		CertFile:       filepath.Join(dir, "ca.pem"),
		ClientCertFile: filepath.Join(dir, "client.pem"),
		ClientKeyFile:  filepath.Join(dir, "client-key.pem"),
	}
	ca.key = newKey(t)
	template := certificateTemplate("natstest authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ca.key.PublicKey, ca.key)
	require.NoError(t, err)
	ca.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	writePEM(t, ca.CertFile, "CERTIFICATE", der)

	der, key := ca.issue(t, "natstest server", names)
	ca.server = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	der, key = ca.issue(t, "natstest client", nil)
	writePEM(t, ca.ClientCertFile, "CERTIFICATE", der)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	writePEM(t, ca.ClientKeyFile, "PRIVATE KEY", keyDER)
	return ca
}

// ServerConfig is a server's side of TLS; verify demands a certificate from clients.
func (ca *CA) ServerConfig(verify bool) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.server}}
	if verify {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = ca.pool()
	}
	return config
}

// ClientConfig is a client's side of TLS, for connections that arrange a test.
func (ca *CA) ClientConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.pool()}
}

func (ca *CA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func (ca *CA) issue(t testing.TB, name string, hosts []string) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	template := certificateTemplate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	require.NoError(t, err)
	return der, key
}

func certificateTemplate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // crypto/rand.Reader never fails
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(path, block, 0o600))
}
