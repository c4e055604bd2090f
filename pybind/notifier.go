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
	return newPipeNotifier()
}

// newPipeNotifier is for where there is no eventfd.
func newPipeNotifier() (*notifier, error) {
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

// take returns up to limit tickets that are done. The descriptor stays readable as long as there are others.
func (n *notifier) take(limit int) []int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.tickets) == 0 {
		return nil
	}
	if len(n.tickets) > limit {
		tickets := n.tickets[:limit:limit]
		n.tickets = n.tickets[limit:]
		return tickets
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

// NotifierOpen opens a notifier and returns its file descriptor.
func NotifierOpen(handle int64) (answer []byte) {
	defer rescue(&answer)
	n, err := newNotifier()
	if err != nil {
		return encodeError(internalError("no notifier could be opened: %s", err))
	}
	notifiers.put(handle, n)
	return encodeNumber(int64(n.reading))
}

// NotifierTake returns up to limit of the tickets that are done.
func NotifierTake(handle, limit int64) (answer []byte) {
	defer rescue(&answer)
	n, ok := notifiers.get(handle)
	if !ok {
		return encodeError(unknownHandle("notifier", handle))
	}
	return encodeNumbers(n.take(int(limit))...)
}

// NotifierClose closes a notifier and its descriptor.
func NotifierClose(handle int64) (answer []byte) {
	defer rescue(&answer)
	if n, ok := notifiers.remove(handle); ok {
		n.close()
	}
	return []byte{answerDone}
}
