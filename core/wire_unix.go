//go:build unix

package natslease

import "syscall"

type rawWriter struct {
	raw syscall.RawConn
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

func newDirectWriter(sc syscall.Conn) directWriter {
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &rawWriter{raw: raw}
	// Made once: a closure for each write would be an allocation on the hot path.
	w.try = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.p)
			if w.err != syscall.EINTR {
				return true // also on EAGAIN: the caller keeps what was refused
			}
		}
	}
	return w
}

// tryWrite is called under the wire's lock.
func (w *rawWriter) tryWrite(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.p = p
	err := w.raw.Write(w.try)
	w.p = nil
	if err != nil {
		return 0, err
	}
	if w.err != nil {
		if w.err == syscall.EAGAIN {
			return 0, nil
		}
		return 0, w.err
	}
	return max(w.n, 0), nil
}
