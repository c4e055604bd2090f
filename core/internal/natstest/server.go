package natstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

const startTimeout = 20 * time.Second

// Option changes the options that a Server starts with.
type Option func(*server.Options)

// User makes the server ask for this user and password.
func User(user, password string) Option {
	return func(o *server.Options) { o.Username, o.Password = user, password }
}

// Users makes the server ask for one of these users, who may have permissions.
func Users(users ...*server.User) Option {
	return func(o *server.Options) { o.Users = users }
}

// Token makes the server ask for this token.
func Token(token string) Option {
	return func(o *server.Options) { o.Authorization = token }
}

// NKey makes the server ask for the nkey with this public key.
func NKey(public string) Option {
	return func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }
}

// WithoutJetStream switches JetStream off.
func WithoutJetStream() Option {
	return func(o *server.Options) { o.JetStream = false }
}

// Domain sets the JetStream domain.
func Domain(name string) Option {
	return func(o *server.Options) { o.JetStreamDomain = name }
}

// MaxPayload sets the largest message that the server accepts.
func MaxPayload(n int32) Option {
	return func(o *server.Options) { o.MaxPayload = n }
}

// StoreLimit sets how much JetStream may store on disk.
func StoreLimit(bytes int64) Option {
	return func(o *server.Options) { o.JetStreamMaxStore = bytes }
}

// TLS makes the server speak TLS only, with a certificate of ca; verify demands one from clients too.
func TLS(ca *CA, verify bool) Option {
	return func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSTimeout = true, verify, 5
		o.TLSConfig = ca.ServerConfig(verify)
	}
}

// TLSFirst is TLS with the handshake before INFO.
func TLSFirst(ca *CA) Option {
	return func(o *server.Options) {
		TLS(ca, false)(o)
		o.TLSHandshakeFirst = true
	}
}

// WebSocket opens a port for websockets besides; see WebSocketURL.
func WebSocket() Option {
	return func(o *server.Options) {
		o.Websocket = server.WebsocketOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoTLS: true}
	}
}

// Server is a nats-server inside the test's process, with JetStream in a temporary directory.
type Server struct {
	t    testing.TB
	opts *server.Options
	s    *server.Server
}

// Start starts a server on a free port. It ends with the test.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(),
		// As short as the server allows.
		LameDuckDuration: time.Second, LameDuckGracePeriod: 200 * time.Millisecond,
	}
	for _, option := range options {
		option(o)
	}
	s := &Server{t: t, opts: o}
	s.run()
	t.Cleanup(s.Shutdown)
	return s
}

func (s *Server) run() {
	s.t.Helper()
	// The server writes into its options: a restart needs them as they were.
	o := s.opts.Clone()
	started, err := server.NewServer(o)
	require.NoError(s.t, err)
	started.Start()
	if !started.ReadyForConnections(startTimeout) {
		started.Shutdown()
		require.FailNow(s.t, "the embedded server did not start")
	}
	s.s = started
	s.opts.Port = o.Port
	s.opts.Websocket.Port = o.Websocket.Port
}

// Shutdown stops the server at once. It may be called twice.
func (s *Server) Shutdown() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

// Restart stops the server, if it runs, and starts it on the same port with its data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Shutdown()
	s.run()
}

// LameDuck announces the shutdown to the clients, as an operator would, and shuts down when they had time to leave.
// It returns at once; Shutdown waits for the end.
func (s *Server) LameDuck() {
	go s.s.LameDuckShutdown()
}

// Addr is host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.opts.Port) }

// URL is nats://host:port.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// WebSocketURL is ws://host:port.
func (s *Server) WebSocketURL() string {
	return fmt.Sprintf("ws://127.0.0.1:%d", s.opts.Websocket.Port)
}

// Embedded is the server itself.
func (s *Server) Embedded() *server.Server { return s.s }

// Connections is how many clients are connected.
func (s *Server) Connections() int { return s.s.NumClients() }

// TotalConnections is how many clients have ever been connected since the start.
func (s *Server) TotalConnections() uint64 {
	s.t.Helper()
	varz, err := s.s.Varz(nil)
	require.NoError(s.t, err)
	return varz.TotalConnections
}

// Connect opens a plain nats.go connection, to arrange what a test needs. It ends with the test.
func Connect(t testing.TB, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{nats.Name("natstest"), nats.Timeout(startTimeout), nats.MaxReconnects(-1)}, options...)
	nc, err := nats.Connect(url, options...)
	require.NoError(t, err)
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		nc.Close()
		<-closed
	})
	return nc
}

// JetStream is Connect with nats.go's JetStream on top.
func JetStream(t testing.TB, url string, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(Connect(t, url, options...))
	require.NoError(t, err)
	return js
}
