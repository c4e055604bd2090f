package pybind

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	natslease "github.com/RolnickLab/natslease/core"
)

const (
	// maxForkWait bounds how long a dial waits for a fork: its end may never be told.
	maxForkWait = time.Second
	// maxForkedDials is how often a dial begins anew because of forks, before it ignores them.
	maxForkedDials = 10
)

// dialer is the one dialer of all clients, so that they can share connections. It knows which sockets are open: a child
// process inherits them, and must close them, for its parent's end to be seen by the server.
var dialer natslease.Dialer = newRecordingDialer()

type recordingDialer struct {
	mu      sync.Mutex
	open    map[recordedSocket]struct{}
	forks   int // begun so far
	forking bool
	calm    chan struct{} // closed when no fork is under way

	recorded func() // for tests
}

// recordedSocket is a socket with its inode, by which it can be told from whatever has the same number later.
type recordedSocket struct{ fd, inode int64 }

type recordedConn struct {
	*net.TCPConn

	dialer *recordingDialer
	raw    syscall.RawConn
	socket recordedSocket
}

func newRecordingDialer() *recordingDialer {
	return &recordingDialer{open: make(map[recordedSocket]struct{}), calm: closed}
}

var errForked = errors.New("the process was being forked")

func (d *recordingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	for attempt := 1; ; attempt++ {
		conn, err := d.dialOnce(ctx, network, address, attempt < maxForkedDials)
		if !errors.Is(err, errForked) {
			return conn, err
		}
	}
}

// dialOnce gives up when a child may have inherited a socket before it was recorded; the socket is not connected then, so
// that no connection is shared without our knowing.
func (d *recordingDialer) dialOnce(ctx context.Context, network, address string, careful bool) (net.Conn, error) {
	forks := d.awaitCalm(ctx)
	tried := socketsOf{dialer: d}
	plain := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		if tried.add(identify(raw)) != forks && careful {
			return errForked
		}
		return nil
	}}
	conn, err := plain.DialContext(ctx, network, address)
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		tried.keepOnly(recordedSocket{})
		return conn, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	connected := identify(raw)
	tried.keepOnly(connected)
	return &recordedConn{TCPConn: tcp, dialer: d, raw: raw, socket: connected}, nil
}

// awaitCalm waits until no fork is under way, and returns how many there were.
func (d *recordingDialer) awaitCalm(ctx context.Context) int {
	d.mu.Lock()
	calm := d.calm
	d.mu.Unlock()
	patience := time.NewTimer(maxForkWait)
	defer patience.Stop()
	select {
	case <-calm:
	case <-patience.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.forks
}

// record returns how many forks there were.
func (d *recordingDialer) record(s recordedSocket) int {
	if d.recorded != nil {
		d.recorded()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[s] = struct{}{}
	return d.forks
}

func (d *recordingDialer) forget(s recordedSocket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, s)
}

// socketsOf are those of one dial, which may try several addresses at once.
type socketsOf struct {
	dialer *recordingDialer

	mu    sync.Mutex
	tried []recordedSocket
	ended bool
}

func (o *socketsOf) add(s recordedSocket) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	forks := o.dialer.record(s)
	if o.ended { // an attempt that lost, and is about to be closed
		o.dialer.forget(s)
	}
	o.tried = append(o.tried, s)
	return forks
}

// keepOnly ends the dial.
func (o *socketsOf) keepOnly(connected recordedSocket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, s := range o.tried {
		if s != connected {
			o.dialer.forget(s)
		}
	}
}

func identify(raw syscall.RawConn) (s recordedSocket) {
	_ = raw.Control(func(fd uintptr) { // it fails for what is closed
		var stat unix.Stat_t
		if unix.Fstat(int(fd), &stat) == nil {
			s = recordedSocket{int64(fd), int64(stat.Ino)}
		}
	})
	return s
}

// Write raises no SIGPIPE: the process may have given that back its default, which is to end it.
func (c *recordedConn) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		var n int
		var failure error
		err := c.raw.Write(func(fd uintptr) bool {
			n, failure = unix.SendmsgN(int(fd), b[sent:], nil, nil, unix.MSG_NOSIGNAL)
			return !errors.Is(failure, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return sent, err
		case errors.Is(failure, unix.EINTR):
			continue
		case failure != nil:
			return sent, &net.OpError{
				Op: "write", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
				Err: os.NewSyscallError("sendmsg", failure),
			}
		}
		sent += n
	}
	return sent, nil
}

// Close tells the server first: as long as a child process has the same socket, closing ours tells it nothing.
func (c *recordedConn) Close() error {
	_ = c.CloseWrite() // it fails where there is nobody to be told
	err := c.TCPConn.Close()
	c.dialer.forget(c.socket)
	return err
}

// forkBegin returns the sockets that a child inherits. Until forkEnd none is connected that is not among them.
func (d *recordingDialer) forkBegin() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.forking {
		d.forking, d.calm = true, make(chan struct{})
	}
	d.forks++
	numbers := make([]int64, 0, 2*len(d.open))
	for s := range d.open {
		numbers = append(numbers, s.fd, s.inode)
	}
	return numbers
}

func (d *recordingDialer) forkEnd() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.forking {
		d.forking = false
		close(d.calm)
	}
	return d.forks
}

// ForkBegin is called before the process is forked. It returns the file descriptor and the inode of each socket that the
// child inherits.
func ForkBegin() (answer []byte) {
	defer rescue(&answer)
	return encodeNumbers(dialer.(*recordingDialer).forkBegin()...)
}

// ForkEnd is called by the parent after the process was forked. It returns how often it was.
func ForkEnd() int64 {
	return int64(dialer.(*recordingDialer).forkEnd())
}
