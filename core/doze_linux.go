package natslease

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// sleepOn blocks the thread while word is 0, for up to d. It may return early.
func sleepOn(word *atomic.Uint32, d time.Duration) {
	timeout := unix.NsecToTimespec(int64(d))
	_, _, _ = syscall.Syscall6(
		syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, 0, uintptr(unsafe.Pointer(&timeout)), 0, 0,
	)
}

// wakeOn ends sleepOn.
func wakeOn(word *atomic.Uint32) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
