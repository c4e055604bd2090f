package natslease

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Dialer opens the network connection under a session. *net.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// oneDial is the dialer of one attempt on one server: it keeps hold of the connection, so that an attempt that
// nats.go is still busy with can be abandoned.
type oneDial struct {
	ctx    context.Context
	dialer Dialer
	flight *flight

	mu        sync.Mutex
	wire      *wire
	err       error
	abandoned bool
}

// Dial is what nats.go calls.
func (d *oneDial) Dial(network, address string) (net.Conn, error) {
	conn, err := d.dialer.DialContext(d.flight.traced(d.ctx), network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.err = err
		return nil, err
	}
	if d.abandoned {
		_ = conn.Close()
		return nil, context.Canceled
	}
	d.flight.markFirst(&d.flight.accepted)
	d.wire = newWire(conn, d.flight)
	return d.wire, nil
}

// abandon closes what was dialed, now or when it comes. Closing the socket itself is what unblocks nats.go.
func (d *oneDial) abandon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.abandoned = true
	if d.wire != nil {
		_ = d.wire.Close()
	}
}

func (d *oneDial) dialError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// dial tries the configured servers in random order, each with a fair share of the time that is left.
func (h *hub) dial() (*session, error) {
	if h.predecessor != nil {
		select {
		case <-h.predecessor:
		case <-h.life.Done():
			return nil, errClosed()
		}
	}
	ctx, cancel := context.WithTimeout(h.life, h.cfg.ConnectTimeout)
	defer cancel()
	servers := slices.Clone(h.cfg.Servers)
	for i := range servers {
		j := i + randomInt(len(servers)-i)
		servers[i], servers[j] = servers[j], servers[i]
	}
	deadline, _ := ctx.Deadline()
	var failures []error
	for i, server := range servers {
		share := time.Until(deadline) / time.Duration(len(servers)-i)
		attempt, cancel := context.WithTimeout(ctx, share)
		s, err := h.dialServer(attempt, server)
		cancel()
		if err == nil {
			return s, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, dialFailure(failures)
}

// dialFailure is the one error for all servers that were tried: a refusal outranks the rest, because waiting does not
// mend it.
func dialFailure(failures []error) error {
	texts := make([]string, len(failures))
	for i, err := range failures {
		texts[i] = err.(*Error).Message
	}
	for _, err := range failures {
		if e := err.(*Error); e.Code == CodeAuthentication || e.Code == CodePermissionDenied {
			return e
		}
	}
	last := *failures[len(failures)-1].(*Error)
	last.Message = strings.Join(texts, "; ")
	return &last
}

func (h *hub) dialServer(ctx context.Context, server string) (*session, error) {
	f := newFlight(redactURL(server))
	h.dialed.Store(f)
	d := &oneDial{ctx: ctx, dialer: h.cfg.Dialer, flight: f}
	s := newSession(h, f)
	deadline, _ := ctx.Deadline()
	options, err := h.cfg.natsOptions()
	if err != nil {
		return nil, err
	}
	options = append(
		options,
		nats.SetCustomDialer(d),
		nats.SkipHostLookup(), // nats.go's own look-up has no deadline
		nats.DontRandomize(),
		nats.IgnoreDiscoveredServers(),
		nats.NoReconnect(),
		nats.MaxPingsOutstanding(1),
		nats.PingInterval(24*time.Hour), // the session's watch does this
		nats.FlusherTimeout(0),          // wire never blocks
		nats.WriteBufferSize(1),         // what is published is written at once, by its caller; see wire.cork
		nats.Timeout(max(time.Until(deadline), time.Millisecond)),
		nats.ErrorHandler(s.onServerError),
		nats.ClosedHandler(s.onClosed),
		nats.LameDuckModeHandler(s.onLameDuck),
	)
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(server, options...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, connectError(f, server, r.err, d.dialError())
		}
		if err := s.start(ctx, r.nc, d.wire); err != nil {
			return nil, connectError(f, server, err, nil)
		}
		return s, nil
	case <-ctx.Done():
		d.abandon()
		go func() { // ends as soon as nats.go notices; a dialer that ignores its context ends when it returns
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, connectError(f, server, ctx.Err(), nil)
	}
}

// connectError says what kept a session from being opened. Nothing of the caller's was sent.
func connectError(f *flight, server string, err, dialErr error) error {
	f.mark(&f.ended)
	where := redactURL(server)
	if dialErr != nil {
		err = dialErr
	}
	var e *Error
	if errors.As(err, &e) { // what ended the session before it was used
		return e
	}
	var unknownCA x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var badCert x509.CertificateInvalidError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrNkeysNotSupported),
		strings.Contains(strings.ToLower(err.Error()), "authorization violation"),
		strings.Contains(strings.ToLower(err.Error()), "authentication"):
		e = newError(CodeAuthentication, OutcomeNotSent, "%s refused the credentials: %s", where, redactError(err))
	case isDeadline(err):
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s did not complete the connection in time: %s", where, strings.TrimSuffix(f.diagnosis(err), "."))
	case errors.Is(err, context.Canceled):
		e = newError(CodeConnectFailed, OutcomeNotSent, "connecting to %s was abandoned because the client was closed", where)
	case errors.As(err, &unknownCA):
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s presented a certificate of an unknown authority: set TLS.CAFile", where)
	case errors.As(err, &wrongName):
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s presented a certificate for another name: set TLS.ServerName (%s)", where, redactError(err))
	case errors.As(err, &badCert):
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s presented a certificate that is not valid: %s", where, redactError(err))
	case strings.Contains(err.Error(), "after TLS handshake"):
		e = newError(CodeConnectFailed, OutcomeNotSent,
			"%s closed the connection after the TLS handshake: it may demand a certificate of this client, or refuse the one that it got: set TLS.CertFile (%s)",
			where, redactError(err))
	case errors.As(err, &noTLS), errors.Is(err, nats.ErrSecureConnWanted):
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s does not speak TLS there: check the scheme and TLS.First (%s)", where, redactError(err))
	default:
		e = newError(CodeConnectFailed, OutcomeNotSent, "%s could not be connected to: %s", where, redactError(err))
	}
	e.Cause = err
	e.history = f.history(err)
	return e
}

func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) || isTimeout(err) }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, nats.ErrTimeout) || errors.As(err, &t) && t.Timeout()
}
