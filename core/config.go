package natslease

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultTimeout        = 5 * time.Second
	defaultConnectTimeout = 5 * time.Second
	defaultSilenceTimeout = 500 * time.Millisecond
	defaultInboxPrefix    = "_INBOX"
	defaultMaxInFlight    = 256
	defaultMaxQueueWait   = time.Second
	defaultServer         = "nats://localhost:4222"
	// shortestTimeout keeps a slip of the unit (5 for 5 s) from being taken for a wish.
	shortestTimeout = time.Millisecond
	maxNameLen      = 255 // of streams, consumers and domains: the server's limit
	maxInboxPrefix  = 255
	maxMaxInFlight  = 100_000
)

// Config has the options of a Client. The zero value of every field means its default.
//
// Printing a Config, logging it or turning it into JSON shows no secret.
type Config struct {
	// ConnectTimeout bounds opening a session: name look-up, TCP, TLS and authentication, over all servers together.
	// A call waits for it only within its own deadline.
	//
	// Defaults to 5 seconds.
	ConnectTimeout time.Duration

	// Credentials is the contents of a credentials file: a user's JWT and seed. It excludes the other ways to authenticate.
	//
	// Defaults to none.
	Credentials string

	// CredentialsFile is the path of a credentials file. It is read anew for each session, so that a renewed file is
	// taken up. It excludes the other ways to authenticate.
	//
	// Defaults to none.
	CredentialsFile string

	// Dialer opens the network connection. Clients share a session only if they have the same Dialer: the same
	// pointer. One that is not a pointer is never shared.
	//
	// Defaults to a net.Dialer.
	Dialer Dialer

	// Domain is the JetStream domain in which the queues are.
	//
	// Defaults to none: the domain of the server that is connected to.
	Domain string

	// InboxPrefix is what the subject of the session's inbox begins with. Set it when the permissions do not allow
	// subscribing below the default.
	//
	// Defaults to "_INBOX".
	InboxPrefix string

	// Logger gets what happens to the session. Clients that share a session use the Logger of the first of them.
	//
	// Defaults to none: nothing is logged.
	Logger *slog.Logger

	// MaxInFlight is how many reserves, and apart from them how many other calls, this process has under way at most.
	//
	// Defaults to 256.
	MaxInFlight int

	// MaxQueueWait is how long a call waits for a place among them before it is refused as busy.
	//
	// Defaults to 1 second.
	MaxQueueWait time.Duration

	// Name is the connection's name as the server shows it.
	//
	// Defaults to "<program> <host> <process id>".
	Name string

	// NKeySeed is the seed of a user's nkey ("SU..."). It excludes the other ways to authenticate.
	//
	// Defaults to none.
	NKeySeed string

	// Password belongs to User.
	//
	// Defaults to none.
	Password string

	// Servers are the URLs of the system's servers, tried in random order: nats://host:port, tls://, ws:// or wss://.
	// The scheme may be left out (nats), and so may the port (4222; 80 for ws, 443 for wss). User and password, or
	// a token, may stand before the host and are moved to their own options. One entry may hold several URLs,
	// separated by commas.
	//
	// Defaults to "nats://localhost:4222".
	Servers []string

	// SilenceTimeout is how long a server may send nothing while something is awaited from it: after that time it gets
	// a PING, and after the same time again the session ends.
	//
	// Defaults to 500 milliseconds.
	SilenceTimeout time.Duration

	// Timeout is the time of a call whose context has no deadline.
	//
	// Defaults to 5 seconds.
	Timeout time.Duration

	// TLS says how servers are authenticated, and this client to them. Setting any of it demands TLS.
	//
	// Defaults to none: TLS where the URL or the server demands it, checked against the system's certificates.
	TLS TLSConfig

	// Token authenticates without a user. It excludes the other ways to authenticate.
	//
	// Defaults to none.
	Token string

	// User authenticates together with Password. It excludes the other ways to authenticate.
	//
	// Defaults to none.
	User string
}

// defaultDialer is one object, so that clients without a Dialer share their session.
var defaultDialer = &net.Dialer{}

// withDefaults returns a copy with defaults filled in and credentials moved out of the URLs. Its error, an *Error of
// CodeConfig, names everything that is wrong.
func (c Config) withDefaults() (Config, error) {
	c.ConnectTimeout = orDefault(c.ConnectTimeout, defaultConnectTimeout)
	c.InboxPrefix = orDefault(c.InboxPrefix, defaultInboxPrefix)
	c.MaxInFlight = orDefault(c.MaxInFlight, defaultMaxInFlight)
	c.MaxQueueWait = orDefault(c.MaxQueueWait, defaultMaxQueueWait)
	c.SilenceTimeout = orDefault(c.SilenceTimeout, defaultSilenceTimeout)
	c.Timeout = orDefault(c.Timeout, defaultTimeout)
	if c.Dialer == nil {
		c.Dialer = defaultDialer
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Name == "" {
		c.Name = defaultName()
	}
	if c.Servers == nil {
		c.Servers = []string{defaultServer}
	}
	c.NKeySeed = strings.TrimSpace(c.NKeySeed)

	var p problems
	p.timeout("ConnectTimeout", c.ConnectTimeout)
	if c.Domain != "" {
		p.check("Domain", checkToken(c.Domain))
	}
	p.check("InboxPrefix", checkSubject(c.InboxPrefix, maxInboxPrefix))
	if c.MaxInFlight < 1 || c.MaxInFlight > maxMaxInFlight {
		p.add("MaxInFlight", "is %d: it must be from 1 to %d", c.MaxInFlight, maxMaxInFlight)
	}
	p.timeout("MaxQueueWait", c.MaxQueueWait)
	p.check("Name", checkText(c.Name))
	c.parseServers(&p)
	p.timeout("SilenceTimeout", c.SilenceTimeout)
	p.timeout("Timeout", c.Timeout)
	c.checkAuth(&p)
	c.checkTLS(&p)
	return c, p.err()
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	program := "natslease"
	if len(os.Args) > 0 && os.Args[0] != "" {
		program = filepath.Base(os.Args[0])
	}
	// Both come from outside; a strange one must not make the default invalid.
	printable := func(s string) string {
		return strings.Map(func(r rune) rune {
			if !isPrintable(r) {
				return '?'
			}
			return r
		}, s)
	}
	return fmt.Sprintf("%s %s %d", printable(program), printable(host), os.Getpid())
}

// problems collects what is wrong with options, so that all of it is reported at once.
type problems []string

func (p *problems) add(option, format string, args ...any) {
	*p = append(*p, option+": "+fmt.Sprintf(format, args...))
}

// check adds what a check function found, if anything.
func (p *problems) check(option, finding string) {
	if finding != "" {
		p.add(option, "%s", finding)
	}
}

func (p *problems) timeout(option string, d time.Duration) {
	if d < shortestTimeout {
		p.add(option, "is %s: it must be at least %s", d, shortestTimeout)
	}
}

func (p *problems) err() error {
	if len(*p) == 0 {
		return nil
	}
	return configError("%s", strings.Join(*p, "; "))
}

// keySalt makes keys of no use outside this process, should one ever be seen.
var keySalt = sync.OnceValue(func() []byte {
	salt := make([]byte, sha256.Size)
	_, _ = rand.Read(salt) // crypto/rand.Read never fails: it ends the program instead
	return salt
})

// uniqueDialers counts the dialers that have no identity to compare.
var uniqueDialers atomic.Uint64

// key identifies the options that decide what a session is: clients with the same key share one. It tells nothing about
// the secrets among them.
func (c Config) key() string {
	h := hmac.New(sha256.New, keySalt())
	write := func(s string) {
		var length [8]byte
		binary.LittleEndian.PutUint64(length[:], uint64(len(s)))
		h.Write(length[:]) // so that no two lists of fields run together to the same bytes
		h.Write([]byte(s))
	}
	servers := slices.Clone(c.Servers)
	slices.Sort(servers)
	for _, s := range append(
		servers,
		c.ConnectTimeout.String(), c.Credentials, c.CredentialsFile, dialerIdentity(c.Dialer), c.Domain, c.InboxPrefix,
		strconv.Itoa(c.MaxInFlight), c.MaxQueueWait.String(), c.Name, c.NKeySeed, c.Password, c.SilenceTimeout.String(), c.TLS.CAFile, c.TLS.CertFile, c.TLS.KeyFile,
		c.TLS.ServerName, fmt.Sprint(c.TLS.First), c.Token, c.User,
	) {
		write(s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// dialerIdentity is stable as long as the dialer is in use, which is as long as a session with that key exists.
func dialerIdentity(d Dialer) string {
	if d == nil {
		d = defaultDialer
	}
	if v := reflect.ValueOf(d); v.Kind() == reflect.Pointer {
		return fmt.Sprintf("%T %x", d, v.Pointer())
	}
	return fmt.Sprintf("%T #%d", d, uniqueDialers.Add(1))
}
