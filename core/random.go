package natslease

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// Everything random comes from crypto/rand: Go seeds math/rand from bytes that fork copies, so the processes of one
// parent would choose the same inboxes, message ids and jitter.

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// randomID is 80 random bits as 16 characters that may stand in a subject.
func randomID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the program instead
	return idEncoding.EncodeToString(b[:])
}

// randomInt is in [0, n).
func randomInt(n int) int {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n))
}

// jittered is between half of d and d.
func jittered(d time.Duration) time.Duration {
	return d/2 + time.Duration(randomInt(int(d/2)+1))
}

// spread is a little more than d: the calls of a process that wait for the same moment are not to come back in step.
func spread(d time.Duration) time.Duration {
	return d + time.Duration(randomInt(int(50*time.Millisecond)))
}

// backoff grows from 20 ms to 500 ms, jittered.
type backoff struct{ next time.Duration }

func (b *backoff) delay() time.Duration {
	b.next = min(max(2*b.next, 20*time.Millisecond), 500*time.Millisecond)
	return jittered(b.next)
}
