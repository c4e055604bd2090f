package natstest

import (
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests and fails if they leave goroutines behind:
//
//	func TestMain(m *testing.M) { natstest.Main(m) }
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, leakOptions()...)
}

// VerifyNoLeaks checks for goroutines that one test leaves behind. Call it first, so that it runs after all other
// cleanups, in a test that is not parallel to others.
func VerifyNoLeaks(t testing.TB) {
	existing := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, append(leakOptions(), existing)...) })
}

// leakOptions names what nats-server keeps running, once per process, whatever is shut down.
func leakOptions() []goleak.Option {
	return []goleak.Option{}
}
