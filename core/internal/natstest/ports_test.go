//go:build unix

package natstest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// short is how long a test listens for something that must not come.
const short = 50 * time.Millisecond

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, startTimeout)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// requireSilent checks that nothing more comes and that the connection stays open.
func requireSilent(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(short)))
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestDeafPort(t *testing.T) {
	t.Parallel()
	p := DeafPort(t)
	c := dial(t, p.Addr())
	<-p.Accepted()
	_, err := c.Write([]byte("PING\r\n"))
	require.NoError(t, err)
	requireSilent(t, c)
	require.Equal(t, 1, p.Connections())
}

func TestInfoOnly(t *testing.T) {
	t.Parallel()
	p := InfoOnly(t)
	c := dial(t, p.Addr())
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Regexp(t, `^INFO {.*}\r\n$`, greeting)
	_, err = c.Write([]byte("CONNECT {}\r\nPING\r\n"))
	require.NoError(t, err)
	requireSilent(t, c)
	require.NoError(t, c.Close())
	require.NoError(t, p.AwaitClosed(testContext(t)))
}

func TestHalfInfo(t *testing.T) {
	t.Parallel()
	p := HalfInfo(t)
	c := dial(t, p.Addr())
	buf := make([]byte, 4)
	_, err := c.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "INFO", string(buf))
}

func TestStallTLS(t *testing.T) {
	t.Parallel()
	p := StallTLS(t)
	c := dial(t, p.Addr())
	greeting, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, greeting, `"tls_required":true`)
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	err = tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "x"}).HandshakeContext(ctx)
	require.Error(t, err)
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}

func TestAwaitClosedEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := InfoOnly(t)
	dial(t, p.Addr())
	<-p.Accepted()
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	require.ErrorIs(t, p.AwaitClosed(ctx), context.DeadlineExceeded)
}

func TestNoAcceptPort(t *testing.T) {
	t.Parallel()
	_, err := net.DialTimeout("tcp", NoAcceptPort(t), short)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

func TestHangingLookup(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	_, err := HangingLookup(t).DialContext(ctx, "tcp", "nats.example.org:4222")
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}

func TestStuckDialer(t *testing.T) {
	t.Parallel()
	returned := make(chan error, 1)
	t.Run("dial", func(t *testing.T) {
		d := NewStuckDialer(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		go func() {
			_, err := d.DialContext(ctx, "tcp", "x:1")
			returned <- err
		}()
		<-d.Entered()
		select {
		case err := <-returned:
			require.Fail(t, "it heeded its context", err)
		case <-time.After(short):
		}
	})
	err := <-returned // the end of the inner test released it
	require.Error(t, err)
	require.False(t, errors.Is(err, context.Canceled))
}
