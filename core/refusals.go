package natslease

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// onServerError runs for every -ERR that leaves the connection open, and for nats.go's own complaints.
func (s *session) onServerError(_ *nats.Conn, _ *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		s.onPermissionViolation(err)
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired),
		errors.Is(err, nats.ErrAuthorization):
		s.end(&Error{Code: CodeAuthentication, Outcome: OutcomeUnknown, Message: s.flight.server + " ended the session: " + redactError(err), Cause: err})
	default:
		s.hub.log.Warn("nats", "server", s.flight.server, "error", redactError(err))
	}
}

// onPermissionViolation matches the refusal to the calls that caused it: the server names only the subject.
func (s *session) onPermissionViolation(err error) {
	_, quoted, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(quoted, `"`)
	denied := newError(CodePermissionDenied, OutcomeRejected, "the server's permissions forbid %s", violation(err, subject))
	denied.Cause = err
	if strings.Contains(err.Error(), "Subscription to") {
		if s.listenerDenied(subject, denied) {
			return
		}
		if s.sensorDenied(subject) {
			s.hub.log.Debug("publishes cannot be listened for", "subject", subject)
			return
		}
		if !strings.HasPrefix(subject, s.hub.cfg.InboxPrefix+".") {
			return // of who has ceased to listen meanwhile
		}
		// Without its inbox the session can hear nothing, not even what became of the calls in flight. The next
		// session may meet corrected permissions.
		denied.Outcome = OutcomeUnknown
		s.end(denied)
		return
	}
	s.mu.Lock()
	var all []listener
	for _, l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	matched := false
	for _, l := range all {
		matched = l.denied(subject, denied) || matched
	}
	if !matched {
		s.hub.log.Warn("permission violation of no call in flight", "subject", subject)
	}
}

func violation(err error, subject string) string {
	if strings.Contains(err.Error(), "Subscription to") {
		return "subscribing to " + strconv.Quote(subject) + ": allow it, or set InboxPrefix to what is allowed"
	}
	return "publishing to " + strconv.Quote(subject)
}
