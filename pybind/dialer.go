package pybind

import (
	"context"
	"net"
	"sync"
	"syscall"

	natslease "github.com/RolnickLab/natslease/core"
)

// dialer is the one dialer of all clients, so that they can share connections. It knows which sockets are open: a child
// process inherits them, and must close them, for its parent's close to be seen by the server.
var dialer natslease.Dialer = &recordingDialer{open: make(map[*recordedConn]int)}

type recordingDialer struct {
	plain net.Dialer

	mu   sync.Mutex
	open map[*recordedConn]int // their descriptors
}

type recordedConn struct {
	*net.TCPConn

	dialer *recordingDialer
}

func (d *recordingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	c := &recordedConn{TCPConn: tcp, dialer: d}
	if fd, ok := descriptor(tcp); ok {
		d.mu.Lock()
		d.open[c] = fd
		d.mu.Unlock()
	}
	return c, nil
}

func descriptor(c syscall.Conn) (int, bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	found := -1
	err = raw.Control(func(fd uintptr) { found = int(fd) })
	return found, err == nil
}

// Close tells the server first: as long as a child process has the same socket, closing ours tells it nothing.
func (c *recordedConn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	_ = c.CloseWrite() // it fails where there is nobody to be told
	return c.TCPConn.Close()
}

// Sockets returns the file descriptors of the open connections.
func Sockets() (answer []byte) {
	defer rescue(&answer)
	d := dialer.(*recordingDialer)
	d.mu.Lock()
	defer d.mu.Unlock()
	numbers := make([]int64, 0, len(d.open))
	for _, fd := range d.open {
		numbers = append(numbers, int64(fd))
	}
	return encodeNumbers(numbers...)
}
