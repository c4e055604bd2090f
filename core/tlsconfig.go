package natslease

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
)

// TLSConfig says how servers are authenticated, and this client to them. Files are in PEM format and are read anew for
// each session.
type TLSConfig struct {
	// CAFile is the path of the certificates of the authorities that servers' certificates are checked against.
	//
	// Defaults to none: the system's authorities.
	CAFile string

	// CertFile is the path of the certificate that this client shows to the server. It needs KeyFile.
	//
	// Defaults to none.
	CertFile string

	// First starts TLS before the server has said anything; the server must be configured for it (handshake_first).
	//
	// Defaults to false.
	First bool

	// KeyFile is the path of the private key of CertFile.
	//
	// Defaults to none.
	KeyFile string

	// ServerName is the name that the server's certificate must be for.
	//
	// Defaults to the host in the server's URL.
	ServerName string
}

// checkTLS finds incomplete and unreadable TLS options.
func (c *Config) checkTLS(p *problems) {
	if c.TLS == (TLSConfig{}) {
		return
	}
	if c.TLS.CertFile != "" && c.TLS.KeyFile == "" {
		p.add("TLS.KeyFile", "is missing: TLS.CertFile needs it")
	}
	if c.TLS.KeyFile != "" && c.TLS.CertFile == "" {
		p.add("TLS.CertFile", "is missing: TLS.KeyFile needs it")
	}
	p.check("TLS.ServerName", checkServerName(c.TLS.ServerName))
	_, finding := c.TLS.loadCA()
	p.check("TLS.CAFile", finding)
	_, finding = c.TLS.loadCertificate()
	p.check("TLS.CertFile", finding)
	for _, server := range c.Servers {
		scheme, _, _ := strings.Cut(server, "://")
		if scheme == "ws" {
			p.add("TLS", "is set, but %s is without TLS: use wss://", redactURL(server))
		}
		if c.TLS.First && isWebsocket(scheme) {
			p.add("TLS.First", "is not for ws:// or wss://, whose TLS always comes first")
			break
		}
	}
}

func checkServerName(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !isPrintable(r) || r == ' ' || r == '/' || r == '@' }) {
		return "is no host name"
	}
	return ""
}

func (t TLSConfig) loadCA() (*x509.CertPool, string) {
	if t.CAFile == "" {
		return nil, ""
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, "cannot be read: " + err.Error()
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, "has no certificate in PEM format: " + t.CAFile
	}
	return pool, ""
}

func (t TLSConfig) loadCertificate() ([]tls.Certificate, string) {
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, ""
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, "cannot be used with TLS.KeyFile: " + err.Error()
	}
	return []tls.Certificate{cert}, ""
}

// load reads the files.
func (t TLSConfig) load() (*tls.Config, error) {
	var p problems
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	var finding string
	config.RootCAs, finding = t.loadCA()
	p.check("TLS.CAFile", finding)
	config.Certificates, finding = t.loadCertificate()
	p.check("TLS.CertFile", finding)
	return config, p.err()
}
