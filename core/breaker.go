package natslease

import (
	"log/slog"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	breakerTrips    = 3 // failed dials or dead sessions in a row
	shortestCool    = 500 * time.Millisecond
	longestCool     = 5 * time.Second
	probeRetryAfter = 100 * time.Millisecond
)

// breaker decides whether a session may be dialed. It counts sessions, never calls: a dial that fails and a session
// that dies are one failure each, and a session that has answered something is a success. gobreaker keeps the counts
// and the states; the cool-down is kept here, because it grows and is jittered, so that processes do not probe in step.
type breaker struct {
	log *slog.Logger
	cb  *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu     sync.Mutex
	until  time.Time     // while open: when the next probe may be made
	cool   time.Duration // the last cool-down
	opened uint64
	news   []func() // what is to be logged once no lock is held
}

func newBreaker(log *slog.Logger) *breaker {
	b := &breaker{log: log}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   1,
		Timeout:       time.Millisecond, // the cool-down proper is until
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerTrips },
		OnStateChange: b.onStateChange,
		IsSuccessful: func(err error) bool {
			switch CodeOf(err) {
			case CodeAuthentication, CodePermissionDenied:
				return true // whoever refuses is there
			}
			return err == nil
		},
		IsExcluded: func(err error) bool {
			switch CodeOf(err) {
			case CodeConfig, CodeClientClosed:
				return true // these say nothing about the server
			}
			return false
		},
	})
	return b
}

// onStateChange runs under gobreaker's lock.
func (b *breaker) onStateChange(_ string, from, to gobreaker.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch to {
	case gobreaker.StateOpen:
		b.cool = min(max(2*b.cool, shortestCool), longestCool)
		wait := b.cool + time.Duration(randomInt(int(b.cool/4))) // jitter
		if wait > longestCool {
			wait = longestCool - time.Duration(randomInt(int(longestCool/4)))
		}
		b.until = time.Now().Add(wait)
		b.opened++
		b.news = append(b.news, func() { b.log.Warn("circuit breaker opened", "from", from.String(), "retry_after", wait) })
	case gobreaker.StateClosed:
		b.cool = 0
		b.news = append(b.news, func() { b.log.Info("circuit breaker closed") })
	case gobreaker.StateHalfOpen:
		b.news = append(b.news, func() { b.log.Info("circuit breaker half-open: one probe is made") })
	}
}

// announce logs what has changed. The caller holds no lock: a log handler may be slow, and may ask for Stats.
func (b *breaker) announce() {
	b.mu.Lock()
	news := b.news
	b.news = nil
	b.mu.Unlock()
	for _, tell := range news {
		tell()
	}
}

func circuitOpen(retryAfter time.Duration) *Error {
	e := newError(CodeCircuitOpen, OutcomeNotSent, "the circuit breaker is open after failures in a row: try again in %s",
		retryAfter.Round(time.Millisecond))
	e.RetryAfter = retryAfter
	return e
}

// begin counts one session, or refuses it at once. What it returns has to be called, with what became of the session;
// a second call does nothing. The session is a probe when the breaker is not closed: there is one at a time.
func (b *breaker) begin() (counted func(error), probe bool, err error) {
	b.mu.Lock()
	wait := time.Until(b.until)
	b.mu.Unlock()
	if wait > 0 {
		return nil, false, circuitOpen(spread(wait))
	}
	done, err := b.cb.Allow()
	if err != nil {
		return nil, false, circuitOpen(jittered(probeRetryAfter))
	}
	probe = b.cb.State() != gobreaker.StateClosed
	var once sync.Once
	return func(err error) { once.Do(func() { done(err) }) }, probe, nil
}

// failed counts the death of a session that had been a success.
func (b *breaker) failed(err error) {
	if counted, _, refused := b.begin(); refused == nil {
		counted(err)
	}
}

// BreakerStats is a snapshot of the circuit breaker.
type BreakerStats struct {
	State               string        `json:"state"` // "closed", "open" or "half-open"
	ConsecutiveFailures uint32        `json:"consecutive_failures"`
	Opened              uint64        `json:"opened"`      // how often it opened
	RetryAfter          time.Duration `json:"retry_after"` // in nanoseconds, until the next probe; 0 unless open
}

func (b *breaker) stats() BreakerStats {
	b.mu.Lock()
	st := BreakerStats{Opened: b.opened, RetryAfter: max(time.Until(b.until), 0)}
	b.mu.Unlock()
	if st.RetryAfter > 0 {
		st.State = gobreaker.StateOpen.String()
		st.ConsecutiveFailures = breakerTrips
		return st
	}
	st.State = b.cb.State().String()
	st.ConsecutiveFailures = b.cb.Counts().ConsecutiveFailures
	return st
}
