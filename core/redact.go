package natslease

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

// hidden stands where a secret was.
const hidden = "***"

// redactURL cuts out of a URL, or what was meant as one, everything that can be secret: what stands before the host and
// the query. It takes the last @ because that is where a password with unescaped characters ends.
func redactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if ok {
		scheme += "://"
	} else {
		scheme, rest = "", s
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = hidden + rest[i:]
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		rest = rest[:i] + "?" + hidden
	}
	return scheme + rest
}

// secretShapes are the forms in which secrets appear in other libraries' texts.
var secretShapes = []struct {
	pattern *regexp.Regexp
	instead string
}{
	// Credentials files and private keys, whole or cut off.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?(-----?-?END [A-Z0-9 ]+-----?-?|$)`), hidden},
	// User and password, or token, in a URL, up to its last @.
	{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s"]*@`), "${1}" + hidden + "@"},
	// JWTs: "eyJ" is the base64 of `{"`.
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_=.-]{8,}`), hidden},
	// Seeds of nkeys: S, the kind, 56 characters of base32.
	{regexp.MustCompile(`\bS[A-Z][A-Z2-7]{40,}`), hidden},
	// Members of the CONNECT message and of other JSON.
	{regexp.MustCompile(`(?i)("(?:auth_token|creds|credentials|jwt|nkey_?seed|pass|passwd|password|secret|seed|sig|token)"\s*:\s*)"(?:[^"\\]|\\.)*"?`), `${1}"` + hidden + `"`},
	// Assignments, as in connection strings.
	{regexp.MustCompile(`(?i)\b((?:auth_token|pass|passwd|password|secret|seed|token)=)[^\s&;,"]+`), "${1}" + hidden},
}

// redactError returns err's text without what looks like a secret.
func redactError(err error) string {
	if err == nil {
		return ""
	}
	return redactText(err.Error())
}

func redactText(s string) string {
	for _, secret := range secretsInUse.longestFirst() {
		s = strings.ReplaceAll(s, secret, hidden)
	}
	for _, shape := range secretShapes {
		s = shape.pattern.ReplaceAllString(s, shape.instead)
	}
	return s
}

// shown returns the options that are set, in alphabetical order, with the secrets hidden.
func (c Config) shown() []slog.Attr {
	var attrs []slog.Attr
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	secret := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, hidden))
		}
	}
	if c.ConnectTimeout != 0 {
		attrs = append(attrs, slog.Duration("ConnectTimeout", c.ConnectTimeout))
	}
	secret("Credentials", c.Credentials)
	text("CredentialsFile", c.CredentialsFile)
	if c.Dialer != nil {
		text("Dialer", fmt.Sprintf("%T", c.Dialer))
	}
	text("Domain", c.Domain)
	text("InboxPrefix", c.InboxPrefix)
	if c.MaxInFlight != 0 {
		attrs = append(attrs, slog.Int("MaxInFlight", c.MaxInFlight))
	}
	if c.MaxQueueWait != 0 {
		attrs = append(attrs, slog.Duration("MaxQueueWait", c.MaxQueueWait))
	}
	text("Name", c.Name)
	secret("NKeySeed", c.NKeySeed)
	secret("Password", c.Password)
	if c.Servers != nil {
		servers := make([]string, len(c.Servers))
		for i, s := range c.Servers {
			servers[i] = redactURL(s)
		}
		attrs = append(attrs, slog.Any("Servers", servers))
	}
	if c.SilenceTimeout != 0 {
		attrs = append(attrs, slog.Duration("SilenceTimeout", c.SilenceTimeout))
	}
	if c.Timeout != 0 {
		attrs = append(attrs, slog.Duration("Timeout", c.Timeout))
	}
	if c.TLS != (TLSConfig{}) {
		attrs = append(attrs, slog.Any("TLS", c.TLS))
	}
	secret("Token", c.Token)
	text("User", c.User)
	return attrs
}

// LogValue gives log/slog the options without the secrets.
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.shown()...) }

// String gives the options that are set, without the secrets.
func (c Config) String() string {
	attrs := c.shown()
	parts := make([]string, len(attrs))
	for i, a := range attrs {
		parts[i] = fmt.Sprintf("%s:%+v", a.Key, a.Value.Any())
	}
	return "natslease.Config{" + strings.Join(parts, " ") + "}"
}

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// Format is String for every verb: without it %d would print the fields.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON gives the options that are set, without the secrets: a Config cannot be stored this way.
func (c Config) MarshalJSON() ([]byte, error) {
	members := make(map[string]any)
	for _, a := range c.shown() {
		members[a.Key] = a.Value.Any()
	}
	return json.Marshal(members)
}
