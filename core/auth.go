package natslease

import (
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// checkAuth finds contradictory, incomplete and unreadable credentials.
func (c *Config) checkAuth(p *problems) {
	var methods []string
	for _, m := range []struct {
		name string
		set  bool
	}{
		{"Credentials", c.Credentials != ""},
		{"CredentialsFile", c.CredentialsFile != ""},
		{"NKeySeed", c.NKeySeed != ""},
		{"Token", c.Token != ""},
		{"User", c.User != "" || c.Password != ""},
	} {
		if m.set {
			methods = append(methods, m.name)
		}
	}
	if len(methods) > 1 {
		p.add(strings.Join(methods, ", "), "only one way to authenticate can be used at a time")
	}
	if c.User != "" && c.Password == "" {
		p.add("Password", "is missing: User needs one (a token goes into Token)")
	}
	if c.User == "" && c.Password != "" {
		p.add("User", "is missing: Password is set without it")
	}
	if c.Credentials != "" {
		p.check("Credentials", checkCredentials([]byte(c.Credentials)))
	}
	if c.CredentialsFile != "" {
		contents, err := os.ReadFile(c.CredentialsFile)
		if err != nil {
			p.add("CredentialsFile", "cannot be read: %s", err)
		} else {
			p.check("CredentialsFile", checkCredentials(contents))
		}
	}
	if c.NKeySeed != "" {
		p.check("NKeySeed", checkSeed([]byte(c.NKeySeed)))
	}
}

// checkCredentials tells what is wrong with a credentials file's contents, without repeating any of it.
func checkCredentials(contents []byte) string {
	if jwt, err := nkeys.ParseDecoratedJWT(contents); err != nil || !strings.HasPrefix(strings.TrimSpace(jwt), "eyJ") {
		return "has no user JWT: it must be the contents of a credentials file, as nsc makes it"
	}
	kp, err := nkeys.ParseDecoratedNKey(contents)
	if err != nil {
		return "has no user seed: it must be the contents of a credentials file, as nsc makes it"
	}
	kp.Wipe()
	return ""
}

func checkSeed(seed []byte) string {
	kind, raw, err := nkeys.DecodeSeed(seed)
	clear(raw)
	if err != nil || kind != nkeys.PrefixByteUser {
		return "is no seed of a user nkey: it begins with SU"
	}
	return ""
}

// natsOptions are nats.go's options for authentication, TLS, name and inbox. Files are read anew, so that renewed
// credentials and certificates are taken up by the next session.
func (c Config) natsOptions() ([]nats.Option, error) {
	options := []nats.Option{nats.Name(c.Name), nats.CustomInboxPrefix(c.InboxPrefix)}
	switch {
	case c.Credentials != "":
		options = append(options, nats.UserCredentialBytes([]byte(c.Credentials)))
	case c.CredentialsFile != "":
		contents, err := os.ReadFile(c.CredentialsFile)
		if err != nil {
			return nil, configError("CredentialsFile: cannot be read: %s", err)
		}
		if finding := checkCredentials(contents); finding != "" {
			return nil, configError("CredentialsFile: %s", finding)
		}
		options = append(options, nats.UserCredentialBytes(contents))
	case c.NKeySeed != "":
		option, err := nkeyOption(c.NKeySeed)
		if err != nil {
			return nil, err
		}
		options = append(options, option)
	case c.Token != "":
		options = append(options, nats.Token(c.Token))
	case c.User != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	}
	if c.TLS == (TLSConfig{}) {
		return options, nil
	}
	config, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	options = append(options, nats.Secure(config))
	if c.TLS.First {
		options = append(options, nats.TLSHandshakeFirst())
	}
	return options, nil
}

func nkeyOption(seed string) (nats.Option, error) {
	// A new pair for each signature: Wipe leaves nothing but the seed itself in memory.
	pair := func() (nkeys.KeyPair, error) { return nkeys.FromSeed([]byte(seed)) }
	kp, err := pair()
	if err != nil {
		return nil, configError("NKeySeed: is no seed of a user nkey: it begins with SU")
	}
	defer kp.Wipe()
	public, err := kp.PublicKey()
	if err != nil {
		return nil, configError("NKeySeed: is no seed of a user nkey: it begins with SU")
	}
	return nats.Nkey(public, func(nonce []byte) ([]byte, error) {
		kp, err := pair()
		if err != nil {
			return nil, err
		}
		defer kp.Wipe()
		return kp.Sign(nonce)
	}), nil
}
