package natstest

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// What promise 1 allows.
const (
	lateP999 = 50 * time.Millisecond
	lateMax  = 250 * time.Millisecond
)

// Lateness collects by how much calls overran their deadlines, less what a sleeper beside each overran the same one:
// that is the machine's own noise.
type Lateness struct {
	mu   sync.Mutex
	late []time.Duration
}

// Measure runs call, which is to return by the deadline, and returns by how much it was late, noise deducted.
func (l *Lateness) Measure(deadline time.Time, call func()) time.Duration {
	noise := make(chan time.Duration, 1)
	go func() {
		time.Sleep(time.Until(deadline))
		noise <- time.Since(deadline)
	}()
	call()
	late := time.Since(deadline)
	// Also when the call was early, so that no sleeper outlives the test.
	late = max(0, late-<-noise)
	l.mu.Lock()
	l.late = append(l.late, late)
	l.mu.Unlock()
	return late
}

// Len is how many calls were measured.
func (l *Lateness) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.late)
}

// Percentile returns the lateness that the given share of the calls (0 to 1) did not exceed.
func (l *Lateness) Percentile(share float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.late) == 0 {
		return 0
	}
	sorted := slices.Clone(l.late)
	slices.Sort(sorted)
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// Assert fails the test if the calls were later than promise 1 allows.
func (l *Lateness) Assert(t testing.TB) {
	t.Helper()
	p999, worst := l.Percentile(0.999), l.Percentile(1)
	t.Logf("lateness of %d calls: median %s, p99.9 %s, max %s", l.Len(), l.Percentile(0.5), p999, worst)
	// Of fewer than a thousand calls the 99.9th percentile is the worst one, which has a limit of its own. The race
	// detector multiplies the cost of memory, which would be measured in the place of the code.
	if l.Len() >= 1000 && p999 > lateP999 && !RaceDetector {
		t.Errorf("the 99.9th percentile of the lateness is %s: more than %s", p999, lateP999)
	}
	if worst > lateMax {
		t.Errorf("the greatest lateness is %s: more than %s", worst, lateMax)
	}
}
