//go:build unix

package natstest

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// info is the greeting of a server that offers everything.
const info = `INFO {"server_id":"NATSTEST","server_name":"natstest","version":"2.15.2","proto":1,"go":"go1.26",` +
	`"host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"jetstream":true%s}` + "\r\n"

// Port is something that listens and does not behave as a server does.
type Port struct {
	listener net.Listener
	accepted chan struct{}

	mu    sync.Mutex
	conns []net.Conn
	over  bool
	done  sync.WaitGroup
}

// DeafPort accepts connections, reads nothing and says nothing.
func DeafPort(t testing.TB) *Port { return newPort(t, func(net.Conn) {}) }

// InfoOnly greets, then reads what comes and never answers: neither CONNECT nor PING.
func InfoOnly(t testing.TB) *Port {
	return newPort(t, func(c net.Conn) {
		_, _ = fmt.Fprintf(c, info, "")
		discard(c)
	})
}

// HalfInfo stops in the middle of its greeting.
func HalfInfo(t testing.TB) *Port {
	return newPort(t, func(c net.Conn) {
		_, _ = fmt.Fprint(c, info[:len(info)/2])
		discard(c)
	})
}

// StallTLS greets with a demand for TLS and never answers the client's part of the handshake.
func StallTLS(t testing.TB) *Port {
	return newPort(t, func(c net.Conn) {
		_, _ = fmt.Fprintf(c, info, `,"tls_required":true`)
		discard(c)
	})
}

func discard(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func newPort(t testing.TB, serve func(net.Conn)) *Port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Port{listener: l, accepted: make(chan struct{}, 1)}
	p.done.Add(1)
	go p.accept(serve)
	t.Cleanup(p.Close)
	return p
}

func (p *Port) accept(serve func(net.Conn)) {
	defer p.done.Done()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.over {
			p.mu.Unlock()
			_ = c.Close()
			return
		}
		p.conns = append(p.conns, c)
		p.done.Add(1)
		p.mu.Unlock()
		select {
		case p.accepted <- struct{}{}:
		default:
		}
		go func() {
			defer p.done.Done()
			serve(c)
		}()
	}
}

// Addr is host:port.
func (p *Port) Addr() string { return p.listener.Addr().String() }

// URL is nats://host:port.
func (p *Port) URL() string { return "nats://" + p.Addr() }

// Accepted gets a value when a connection was accepted since the last value was taken.
func (p *Port) Accepted() <-chan struct{} { return p.accepted }

// Connections is how many connections have been accepted.
func (p *Port) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// AwaitClosed waits until the client has closed every connection that was accepted. It works only for a port that
// reads.
func (p *Port) AwaitClosed(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.Close)
	defer stop()
	p.mu.Lock()
	conns := append([]net.Conn(nil), p.conns...)
	p.mu.Unlock()
	for _, c := range conns {
		discard(c)
	}
	return ctx.Err()
}

// Close closes the port and every connection.
func (p *Port) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.over = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

// NoAcceptPort is the address of a port whose queue of connections is full: a connect to it is never answered.
func NoAcceptPort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	socket := os.NewFile(uintptr(fd), "listener")
	t.Cleanup(func() { _ = socket.Close() })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	// The kernel completes connections until the queue is full; how many it holds is its own affair.
	for range 64 {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	require.FailNow(t, "the queue of connections did not fill")
	return ""
}
