package natslease

import (
	"time"
)

// idlePing is how often a session that awaits nothing asks whether the server is there.
const idlePing = 5 * time.Second

// watch ends a session whose server has gone silent. While something is awaited, SilenceTimeout without a byte sends a
// PING and SilenceTimeout more ends the session; idle, the same check is made every idlePing.
func (s *session) watch() {
	defer s.done.Done()
	limit := s.hub.cfg.SilenceTimeout
	timer := time.NewTimer(min(limit/2, beatSpacing)) // a call may wait already, and wakes nobody
	defer timer.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-s.wake:
		case <-timer.C:
		}
		awaited := s.beat()
		quiet := s.quiet()
		switch {
		case awaited && quiet >= limit, quiet >= idlePing:
			if !s.answersPing(limit) {
				s.end(newError(CodeConnectionLost, OutcomeUnknown, "%s has been silent for %s and did not answer a PING",
					s.flight.server, s.silence().Round(time.Millisecond)))
				return
			}
			timer.Reset(min(limit/2, beatSpacing))
		case awaited:
			s.resting.Store(false)
			timer.Reset(min(limit/4, beatSpacing, max(limit-quiet, time.Millisecond)))
		default:
			// Nothing is awaited. A first short sleep keeps a busy session from waking the watch for each call.
			if s.resting.Swap(true) {
				timer.Reset(max(idlePing-quiet, limit))
			} else {
				timer.Reset(beatSpacing)
			}
		}
	}
}

// beat is a sign of life while something is awaited, and tells whether that is so.
func (s *session) beat() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.awaitedSince.Load() == 0 {
		return false
	}
	s.pulse.beat(s.flight.now())
	return true
}

// silence is how long no byte has come.
func (s *session) silence() time.Duration {
	d, ok := s.flight.since(&s.flight.lastRead)
	if !ok {
		d, _ = s.flight.since(&s.flight.connected)
	}
	return d
}

// quiet is how long no byte has come while one could be expected: since something began to be awaited, if anything is.
func (s *session) quiet() time.Duration {
	quiet := s.silence()
	if since, ok := s.flight.since(&s.awaitedSince); ok {
		quiet = min(quiet, since)
	}
	return quiet
}

// answersPing tells whether any byte comes within the limit after a PING.
func (s *session) answersPing(limit time.Duration) bool {
	s.flight.mark(&s.flight.pingSent)
	sent := s.flight.pingSent.Load()
	if s.nc.FlushTimeout(limit) == nil {
		s.judge(nil)
		return true
	}
	return s.flight.lastRead.Load() >= sent
}
