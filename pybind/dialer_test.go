package pybind

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (d *recordingDialer) listed() []recordedSocket {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []recordedSocket
	for s := range d.open {
		all = append(all, s)
	}
	return all
}

func TestDialerKnowsWhatIsOpen(t *testing.T) {
	t.Parallel()
	d, l := newRecordingDialer(), listen(t)
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := conn.(*recordedConn)
	if got := d.listed(); !slices.Equal(got, []recordedSocket{c.socket}) || c.socket.fd == 0 || c.socket.inode == 0 {
		t.Fatalf("open are %v, connected is %v", got, c.socket)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		t.Fatal("connected to a closed port")
	}
	if got := d.listed(); len(got) != 0 {
		t.Fatalf("open are %v", got)
	}
}

func TestDialerWaitsForTheEndOfAFork(t *testing.T) {
	t.Parallel()
	d, l := newRecordingDialer(), listen(t)
	d.forkBegin()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := d.DialContext(ctx, "tcp", l.Addr().String()); err == nil {
		t.Fatal("it did not wait")
	}
	done := make(chan error)
	go func() {
		conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		done <- err
	}()
	d.forkEnd()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDialerBeginsAnewAfterAFork(t *testing.T) {
	t.Parallel()
	d, l := newRecordingDialer(), listen(t)
	// As if the fork came between the making of the socket and its being recorded.
	forks := 0
	d.recorded = func() {
		if forks++; forks <= 3 {
			d.forkBegin()
			d.forkEnd()
		}
	}
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if forks != 4 {
		t.Fatalf("dialed %d times", forks)
	}
	if got := d.listed(); !slices.Equal(got, []recordedSocket{conn.(*recordedConn).socket}) {
		t.Fatalf("open are %v", got)
	}
}
