package pybind

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func (n *notifier) readable(t *testing.T) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(n.reading), Events: unix.POLLIN}}
	ready, err := unix.Poll(fds, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ready == 1
}

func TestNotifierTellsUntilAllIsTaken(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func() (*notifier, error){"eventfd": newNotifier, "pipe": newPipeNotifier} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := open()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 { // it can be used again
				if n.readable(t) || len(n.take(10)) != 0 {
					t.Fatal("there is nothing to be told")
				}
				for ticket := range int64(5) {
					n.tell(ticket)
				}
				for _, want := range [][]int64{{0, 1}, {2, 3}, {4}} {
					if !n.readable(t) {
						t.Fatal("tickets are left, and nobody is told")
					}
					if got := n.take(2); !slices.Equal(got, want) {
						t.Fatalf("took %v, not %v", got, want)
					}
				}
			}
			n.close()
			n.tell(6) // an operation that ends later
			n.close()
			if len(n.take(2)) != 0 {
				t.Fatal("told after the end")
			}
		})
	}
}

func TestWriteRaisesNoSignalAndTellsWhatFailed(t *testing.T) {
	t.Parallel()
	d, l := newRecordingDialer(), listen(t)
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20) // more than the buffers hold: it is written in parts
	received := make(chan int)
	go func() {
		n := 0
		for buffer := make([]byte, 1<<16); n < len(data); {
			got, err := peer.Read(buffer)
			if err != nil {
				break
			}
			n += got
		}
		_ = peer.Close()
		received <- n
	}()
	if n, err := conn.Write(data); n != len(data) || err != nil {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if n := <-received; n != len(data) {
		t.Fatalf("%d arrived", n)
	}
	for err == nil {
		_, err = conn.Write(data) // the peer has closed
	}
	if _, err := conn.Write(data); err == nil {
		t.Fatal("written to a broken pipe")
	}
}
