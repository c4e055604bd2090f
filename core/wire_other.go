//go:build !unix

package natslease

import "syscall"

// newDirectWriter has nothing to offer here: every write goes through the flushing goroutine.
func newDirectWriter(syscall.Conn) directWriter { return nil }
