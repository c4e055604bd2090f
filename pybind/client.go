package pybind

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

var (
	clients table[*natslease.Client]
	queues  table[*natslease.Queue]
)

// options has the fields of natslease.Config under their Python names. What is left out has its default.
type options struct {
	ConnectTimeout  time.Duration `json:"connect_timeout"`
	Credentials     string        `json:"credentials"`
	CredentialsFile string        `json:"credentials_file"`
	Domain          string        `json:"domain"`
	InboxPrefix     string        `json:"inbox_prefix"`
	MaxInFlight     int           `json:"max_in_flight"`
	MaxQueueWait    time.Duration `json:"max_queue_wait"`
	Name            string        `json:"name"`
	NKeySeed        string        `json:"nkey_seed"`
	Password        string        `json:"password"`
	Servers         []string      `json:"servers"`
	SilenceTimeout  time.Duration `json:"silence_timeout"`
	Timeout         time.Duration `json:"timeout"`
	TLSCA           string        `json:"tls_ca"`
	TLSCert         string        `json:"tls_cert"`
	TLSFirst        bool          `json:"tls_first"`
	TLSKey          string        `json:"tls_key"`
	TLSServerName   string        `json:"tls_server_name"`
	Token           string        `json:"token"`
	User            string        `json:"user"`
}

func (o *options) config() natslease.Config {
	return natslease.Config{
		ConnectTimeout: o.ConnectTimeout, Credentials: o.Credentials, CredentialsFile: o.CredentialsFile,
		Dialer: dialer, Domain: o.Domain, InboxPrefix: o.InboxPrefix, Logger: logger, MaxInFlight: o.MaxInFlight, MaxQueueWait: o.MaxQueueWait,
		Name: o.Name, NKeySeed: o.NKeySeed, Password: o.Password, Servers: o.Servers, SilenceTimeout: o.SilenceTimeout,
		Timeout: o.Timeout, Token: o.Token, User: o.User,
		TLS: natslease.TLSConfig{CAFile: o.TLSCA, CertFile: o.TLSCert, First: o.TLSFirst, KeyFile: o.TLSKey, ServerName: o.TLSServerName},
	}
}

// Open makes a new client behind the handle. It does no I/O.
func Open(client int64, config []byte) (answer []byte) {
	defer rescue(&answer)
	var o options
	if err := json.Unmarshal(config, &o); err != nil {
		return encodeError(err)
	}
	c, err := natslease.New(o.config())
	if err != nil {
		return encodeError(pythonNames(err))
	}
	clients.put(client, c)
	return []byte{answerDone}
}

// OpenQueue makes a queue of the client behind the handle. It does no I/O.
func OpenQueue(queue, client int64, config []byte) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.get(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	var o queueOptions
	if err := json.Unmarshal(config, &o); err != nil {
		return encodeError(err)
	}
	q, err := c.Queue(natslease.QueueConfig(o))
	if err != nil {
		return encodeError(pythonNames(err))
	}
	queues.put(queue, q)
	return []byte{answerDone}
}

// ForgetQueue ends the handle of a queue, and returns it.
func ForgetQueue(queue int64) int64 {
	queues.remove(queue)
	return queue
}

// queueOptions has the fields of natslease.QueueConfig under their Python names.
type queueOptions struct {
	AckWait         time.Duration `json:"ack_wait"`
	Consumer        string        `json:"consumer"`
	DeadLetters     string        `json:"dead_letters"`
	Discard         string        `json:"discard"`
	DuplicateWindow time.Duration `json:"duplicate_window"`
	MaxAckPending   int           `json:"max_ack_pending"`
	MaxAge          time.Duration `json:"max_age"`
	MaxBytes        int64         `json:"max_bytes"`
	MaxDeliver      int           `json:"max_deliver"`
	MaxMessages     int64         `json:"max_messages"`
	Replicas        int           `json:"replicas"`
	Retention       string        `json:"retention"`
	Storage         string        `json:"storage"`
	Stream          string        `json:"stream"`
	Subject         string        `json:"subject"`
}

// CloseClient closes a client. Its handle ends at once; those of its queues only fail.
func CloseClient(ticket, timeout, slice, notifier, client int64) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.remove(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	return run(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func()) {
		awaitDetached(ctx)
		return ended(c.Close(ctx)), nil
	})
}

// awaitDetached waits for what is being given back, and leaves half of the time for closing.
func awaitDetached(ctx context.Context) {
	if deadline, ok := ctx.Deadline(); ok {
		half, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
		ctx = half
	}
	detached.wait(ctx)
}

// ForgetClient closes a client that nobody uses any more, and returns its handle. It does not wait.
func ForgetClient(client, timeout int64) int64 {
	if c, ok := clients.remove(client); ok {
		go func() {
			defer func() { _ = recover() }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(timeout))
			defer cancel()
			awaitDetached(ctx)
			_ = c.Close(ctx) // nobody is left to be told
		}()
	}
	return client
}

// Ping returns the round trip time to the server.
func Ping(ticket, timeout, slice, notifier, client int64) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.get(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	return runHere(call{ticket, timeout, slice, notifier}, func(ctx context.Context) ([]byte, func(), bool) {
		took, err := c.Ping(ctx)
		if err != nil {
			return encodeError(err), nil, true
		}
		return encodeNumber(int64(took)), nil, false
	})
}

// Stats returns the client's figures as JSON.
func Stats(client int64) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.get(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	return encodeValue(describeStats(c.Stats()))
}

// pythonNames puts the options' Python names into an error that names them as the fields of natslease.Config,
// natslease.QueueConfig, natslease.StreamFilter or fleet.Config.
func pythonNames(err error) error {
	var e *natslease.Error
	if !errors.As(err, &e) || e.Code != natslease.CodeConfig {
		return err
	}
	renamed := *e
	renamed.Message = inPython(e.Message)
	return &renamed
}

// inPython replaces the names of fields in a text, except in what it quotes.
func inPython(text string) string {
	isName := func(r rune) bool { return r == '.' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' }
	var b strings.Builder
	for text != "" {
		n := 1
		switch {
		case text[0] == '"':
			if quoted, err := strconv.QuotedPrefix(text); err == nil {
				n = len(quoted)
			}
			b.WriteString(text[:n])
		case isName(rune(text[0])):
			if end := strings.IndexFunc(text, func(r rune) bool { return !isName(r) }); end >= 0 {
				n = end
			} else {
				n = len(text)
			}
			if python, ok := fieldNames()[text[:n]]; ok {
				b.WriteString(python)
			} else {
				b.WriteString(text[:n])
			}
		default:
			b.WriteByte(text[0])
		}
		text = text[n:]
	}
	return b.String()
}

// fieldNames has the Python name of each field, which is its name in JSON.
var fieldNames = sync.OnceValue(func() map[string]string {
	names := make(map[string]string)
	for _, t := range []reflect.Type{reflect.TypeFor[options](), reflect.TypeFor[queueOptions](), reflect.TypeFor[streamFilter](), reflect.TypeFor[fleetOptions]()} {
		for i := range t.NumField() {
			name, python := t.Field(i).Name, t.Field(i).Tag.Get("json")
			names[name] = python
			if rest, ok := strings.CutPrefix(name, "TLS"); ok {
				// The field of natslease.TLSConfig, where a path is called File.
				names["TLS."+rest], names["TLS."+rest+"File"] = python, python
			}
		}
	}
	return names
})
