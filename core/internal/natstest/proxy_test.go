package natstest

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func connectThrough(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Addr(), startTimeout)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(startTimeout)))
	exchange(t, c, "hello")
	return c
}

func exchange(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestProxyForwardsNATS(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, Start(t).Addr())
	require.Equal(t, uint64(1), stored(t, JetStream(t, p.URL())))
	require.Equal(t, 1, p.Connections())
}

func TestProxyPauseAndResume(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := connectThrough(t, p)
	for _, directions := range [][]Direction{nil, {FromClient}, {FromServer}} {
		p.Pause(directions...)
		p.Pause(directions...) // once more changes nothing
		_, err := io.WriteString(c, "held back")
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(startTimeout)))
		p.Resume()
		got := make([]byte, len("held back"))
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, "held back", string(got))
	}
}

func TestProxyPausedFillsTheSocketBuffer(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := connectThrough(t, p)
	p.Pause()
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
	_, err := c.Write(make([]byte, 64<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestProxyCutResets(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := connectThrough(t, p)
	p.Cut()
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	connectThrough(t, p) // the next connection is a new one
	require.Equal(t, 2, p.Total())
}

func TestProxyCutAfter(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := connectThrough(t, p)
	cut := p.CutAfter(FromClient, 10)
	exchange(t, c, "12345")
	_, err := io.WriteString(c, "67890")
	require.NoError(t, err)
	<-cut
	_, err = io.ReadAll(c)
	require.Error(t, err)
}

func TestProxyCutBefore(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	p.Throttle(time.Microsecond, FromClient) // so that the pattern comes in pieces
	c := connectThrough(t, p)
	cut := p.CutBefore(FromServer, "needle")
	exchange(t, c, "hay ")
	_, err := io.WriteString(c, "more needle hay")
	require.NoError(t, err)
	<-cut
	got, err := io.ReadAll(c)
	require.Error(t, err)
	require.NotContains(t, string(got), "needle")
	require.True(t, strings.HasPrefix("more needl", string(got)), "%q", got)
}

func TestProxyCutBeforeThePubAck(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := NewProxy(t, s.Addr())
	direct := JetStream(t, s.URL())
	require.Equal(t, uint64(1), stored(t, direct))
	js := JetStream(t, p.URL(), nats.MaxReconnects(0))
	cut := p.CutBefore(FromServer, `"seq"`)
	_, err := js.Publish(testContext(t), "kept", []byte("stored, but nobody is told"))
	require.Error(t, err)
	<-cut
	stream, err := direct.Stream(testContext(t), "kept")
	require.NoError(t, err)
	require.Equal(t, uint64(2), stream.CachedInfo().State.Msgs)
}

func TestProxyThrottle(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	c := connectThrough(t, p)
	p.Throttle(10 * time.Millisecond)
	started := time.Now()
	exchange(t, c, "0123456789")
	require.Greater(t, time.Since(started), 100*time.Millisecond)
}

func TestProxyToNowhereCloses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	p := NewProxy(t, l.Addr().String())
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.Zero(t, p.Total())
}
