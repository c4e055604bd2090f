package pybind

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// notifier tells an event loop which tickets are done: by a file descriptor that becomes readable.
type notifier struct {
	mu      sync.Mutex
	reading int // given to Python, which never closes it
	writing int // the same for an eventfd
	closed  bool
	tickets []int64
}

var notifiers table[*notifier]

func newNotifier() (*notifier, error) {
	if fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
		return &notifier{reading: fd, writing: fd}, nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	return &notifier{reading: ends[0], writing: ends[1]}, nil
}

func (n *notifier) tell(ticket int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.tickets = append(n.tickets, ticket)
	if len(n.tickets) == 1 {
		// Eight bytes are what an eventfd takes. It fails only where the descriptor is readable already.
		_, _ = unix.Write(n.writing, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// take returns the tickets that are done and makes the descriptor unreadable until there are others.
func (n *notifier) take() []int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.tickets) == 0 {
		return nil
	}
	var buffer [8]byte
	_, _ = unix.Read(n.reading, buffer[:])
	tickets := n.tickets
	n.tickets = nil
	return tickets
}

func (n *notifier) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed = true
	_ = unix.Close(n.reading)
	if n.writing != n.reading {
		_ = unix.Close(n.writing)
	}
}

// NotifierOpen returns a notifier's handle and, after it, its file descriptor.
func NotifierOpen() (answer []byte) {
	defer rescue(&answer)
	n, err := newNotifier()
	if err != nil {
		return encodeError(internalError("no notifier could be opened: %s", err))
	}
	return encodeNumbers(notifiers.add(n), int64(n.reading))
}

// NotifierTake returns the tickets that are done.
func NotifierTake(handle int64) (answer []byte) {
	defer rescue(&answer)
	n, ok := notifiers.get(handle)
	if !ok {
		return encodeError(unknownHandle("notifier", handle))
	}
	return encodeNumbers(n.take()...)
}

// NotifierClose closes a notifier and its descriptor.
func NotifierClose(handle int64) (answer []byte) {
	defer rescue(&answer)
	if n, ok := notifiers.remove(handle); ok {
		n.close()
	}
	return []byte{answerDone}
}
