package natslease

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// The JetStream API's error codes that mean something to a queue client
// (https://github.com/nats-io/nats-server/blob/main/server/errors.json).
const (
	errCodeAccountResources  = 10002
	errCodeNotAvailable      = 10008 // no meta leader
	errCodeClusterNotActive  = 10006
	errCodeNoLeader          = 10009
	errCodeConsumerNotFound  = 10014
	errCodeServerResources   = 10023
	errCodeNoMessage         = 10037
	errCodeNotEnabledAccount = 10039
	errCodeStreamConfig      = 10052
	errCodeMessageTooLarge   = 10054
	errCodeStreamNameInUse   = 10058
	errCodeStreamNotFound    = 10059
	errCodeWrongLastSequence = 10071
	errCodeSubjectOverlap    = 10065
	errCodeStreamOffline     = 10118
	errCodeConsumerOffline   = 10119
	errCodeNotEnabled        = 10076
	errCodeStoreFailed       = 10077
	errCodeConsumerNameInUse = 10148
	errCodeConsumerExists    = 10105

	errCodeDuplicateInProcess = 10158
)

// apiError is how the JetStream API says no.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// asError gives the server's refusal the type that tells what to do about it.
func (a *apiError) asError() *Error {
	switch a.ErrCode {
	case errCodeStreamNotFound:
		return newError(CodeQueueNotFound, OutcomeRejected, "the stream does not exist: call Ensure")
	case errCodeConsumerNotFound:
		return newError(CodeQueueNotFound, OutcomeRejected, "the consumer does not exist: call Ensure")
	case errCodeNotEnabled, errCodeNotEnabledAccount:
		return newError(CodeQueueUnavailable, OutcomeRejected, "JetStream is not enabled: %s", a.Description)
	case errCodeNotAvailable, errCodeClusterNotActive, errCodeNoLeader, errCodeStreamOffline, errCodeConsumerOffline:
		return newError(CodeQueueUnavailable, OutcomeRejected, "the queue has no leader at the moment: %s", a.Description)
	case errCodeAccountResources, errCodeServerResources, errCodeStoreFailed:
		return newError(CodeStorageFull, OutcomeRejected, "the server has no room: %s", a.Description)
	case errCodeWrongLastSequence:
		return newError(CodeConflict, OutcomeRejected, "somebody else has written in the meantime: %s", a.Description)
	case errCodeMessageTooLarge:
		return newError(CodePayloadTooLarge, OutcomeRejected, "above the stream's maximum message size: %s", a.Description)
	default:
		return newError(CodeServer, OutcomeRejected, "the server refused: %s (%d)", a.Description, a.ErrCode)
	}
}

// transient tells whether the same request may succeed in a moment.
func (a *apiError) transient() bool {
	switch a.ErrCode {
	case errCodeNotAvailable, errCodeClusterNotActive, errCodeNoLeader:
		return true
	}
	return false
}

// questionPatience is how long a call that goes on trying waits for the answer to its first question; to each further one
// twice as long.
const questionPatience = 250 * time.Millisecond

// soon asks on behalf of a call that goes on trying when there is no answer yet: who answers questions may be the last to
// have a leader again. Its error is a refusal, or the end of the session or of the call's time.
func soon(ctx context.Context, attempt int, ask func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, questionPatience<<min(attempt, 6))
	defer cancel()
	err := ask(limited)
	if err != nil && ctx.Err() == nil && asOperation("", err).Outcome != OutcomeRejected && CodeOf(err) != CodeConnectionLost {
		return nil
	}
	return err
}

// repeatable tells whether asking twice does no more than asking once.
func repeatable(subject string) bool {
	_, rest, _ := strings.Cut(subject, ".")
	verb, _, _ := strings.Cut(rest, ".")
	switch verb {
	case "INFO", "LIST", "NAMES", "CREATE", "UPDATE", "MSG":
		return true
	}
	return false
}

// ask sends one request to the JetStream API. "No responders" comes back as errNoResponders: what it means depends on
// what was asked.
func (s *session) ask(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	m, err := s.request(ctx, s.hub.cfg.apiPrefix()+subject, data, repeatable(subject))
	if err == nil && isNoResponders(m) {
		return nil, errNoResponders
	}
	return m, err
}

// api asks the JetStream API and decodes its answer. While there is no leader it asks again inside the deadline, on the
// same session: a call fails with that.
// The second result is the server's own refusal, if that is what came.
func (h *hub) api(ctx context.Context, subject string, request, answer any) (*apiError, error) {
	data := []byte{}
	if request != nil {
		var err error
		if data, err = json.Marshal(request); err != nil {
			return nil, newError(CodeConfig, OutcomeRejected, "%s", err)
		}
	}
	s, err := h.session(ctx)
	if err != nil {
		return nil, err
	}
	var wait backoff
	for {
		asked := time.Now()
		m, err := s.ask(ctx, subject, data)
		switch {
		case err == errNoResponders:
			if err := s.whyNobodyAnswers(ctx); err != nil {
				return nil, err
			}
		case CodeOf(err) == CodeDeadline && repeatable(subject) && time.Since(asked) > firstSilence && s.flight.lastByte().After(asked):
			e := newError(CodeQueueUnavailable, OutcomeUnknown, "the server is there, but JetStream did not answer until the deadline: "+
				"it has no leader at the moment, or is too busy")
			e.history = inOperation("", err, OutcomeUnknown).(*Error).history
			return nil, e
		case err != nil:
			return nil, err
		default:
			var failure struct {
				Error *apiError `json:"error"`
			}
			if err := json.Unmarshal(m.Data, &failure); err != nil {
				return nil, newError(CodeServer, OutcomeUnknown, "the answer to %s is no JSON", subject)
			}
			if failure.Error == nil {
				if answer == nil {
					return nil, nil
				}
				if err := json.Unmarshal(m.Data, answer); err != nil {
					return nil, newError(CodeServer, OutcomeUnknown, "the answer to %s could not be read: %s", subject, err)
				}
				return nil, nil
			}
			if !failure.Error.transient() {
				return failure.Error, nil
			}
		}
		if !sleep(ctx, wait.delay()) {
			return nil, interrupted(ctx, outOfTime("JetStream had no leader until the deadline"))
		}
	}
}

// whyNobodyAnswers tells a JetStream that is switched off, which is an error at once, from one that has no leader at
// the moment (nil). Right after a server start its subscriptions may be seconds behind, so "off" is asked twice.
func (s *session) whyNobodyAnswers(ctx context.Context) error {
	for range 2 {
		m, err := s.ask(ctx, "INFO", nil)
		if err == nil {
			var failure struct {
				Error *apiError `json:"error"`
			}
			if json.Unmarshal(m.Data, &failure) == nil && failure.Error != nil && !failure.Error.transient() {
				return failure.Error.asError()
			}
			return nil
		}
		if CodeOf(err) == CodePermissionDenied {
			return nil // it may not be asked: so nothing is known
		}
		if err != errNoResponders {
			return err
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return interrupted(ctx, outOfTime("nobody answered for JetStream until the deadline"))
		}
	}
	return newError(CodeQueueUnavailable, OutcomeRejected, "JetStream is not enabled on this server, or not in this domain")
}

// outOfTime is the error of a call whose last pause would have outlasted its deadline. Nothing was taken by anybody.
func outOfTime(message string) *Error {
	e := newError(CodeQueueUnavailable, OutcomeNotSent, "%s", message)
	e.Cause = context.DeadlineExceeded
	return e
}

// sleep waits for d and returns whether the context still has time then.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// apiPrefix is "$JS.API." or, in a domain, "$JS.<domain>.API.".
func (c *Config) apiPrefix() string {
	if c.Domain == "" {
		return "$JS.API."
	}
	return "$JS." + c.Domain + ".API."
}

// streamConfig and consumerConfig have the fields that a queue decides; whatever else the server keeps there is left
// as it is.
type streamConfig struct {
	Name       string        `json:"name"`
	Subjects   []string      `json:"subjects"`
	Retention  string        `json:"retention"`
	Storage    string        `json:"storage"`
	Discard    string        `json:"discard"`
	Replicas   int           `json:"num_replicas"`
	MaxAge     time.Duration `json:"max_age"`
	MaxBytes   int64         `json:"max_bytes"`
	MaxMsgs    int64         `json:"max_msgs"`
	Duplicates time.Duration `json:"duplicate_window"`
}

type consumerConfig struct {
	Durable       string        `json:"durable_name"`
	Name          string        `json:"name"`
	DeliverPolicy string        `json:"deliver_policy"`
	AckPolicy     string        `json:"ack_policy"`
	ReplayPolicy  string        `json:"replay_policy"`
	AckWait       time.Duration `json:"ack_wait"`
	MaxDeliver    int           `json:"max_deliver"`
	MaxAckPending int           `json:"max_ack_pending"`
	FilterSubject string        `json:"filter_subject,omitempty"`

	FilterSubjects []string `json:"filter_subjects,omitempty"`
}

type streamInfo struct {
	Config  json.RawMessage `json:"config"`
	Created time.Time       `json:"created"`
	State   struct {
		Messages  uint64    `json:"messages"`
		Bytes     uint64    `json:"bytes"`
		FirstSeq  uint64    `json:"first_seq"`
		LastSeq   uint64    `json:"last_seq"`
		First     time.Time `json:"first_ts"`
		Last      time.Time `json:"last_ts"`
		Consumers int       `json:"consumer_count"`
	} `json:"state"`
	Cluster *clusterInfo `json:"cluster"`
}

type consumerInfo struct {
	Config         json.RawMessage `json:"config"`
	NumPending     uint64          `json:"num_pending"`
	NumAckPending  uint64          `json:"num_ack_pending"`
	NumRedelivered uint64          `json:"num_redelivered"`
	NumWaiting     uint64          `json:"num_waiting"`
	Paused         bool            `json:"paused"`
	Delivered      struct {
		Stream uint64 `json:"stream_seq"`
	} `json:"delivered"`
	Cluster *clusterInfo `json:"cluster"`
}

// clusterInfo is what the leader of a stream or a consumer says of itself and its replicas.
type clusterInfo struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Name    string        `json:"name"`
		Current bool          `json:"current"`
		Offline bool          `json:"offline"`
		Active  time.Duration `json:"active"` // since it was heard last; 0: never
	} `json:"replicas"`
}

// awayAfter is how long a replica is not heard until it counts as away: several of its heartbeats.
const awayAfter = 3 * time.Second

// away names the servers whose replica is offline, or is not heard any more. One that is only not current is there: while
// there is work, one or the other always is a few entries behind.
func (c *clusterInfo) away() []string {
	var names []string
	if c != nil {
		for _, r := range c.Replicas {
			if r.Offline || !r.Current && (r.Active == 0 || r.Active > awayAfter) {
				names = append(names, r.Name)
			}
		}
	}
	return names
}

// replicated tells whether the consumer's leader can be behind the stream's.
func (c *consumerInfo) replicated() bool { return c.Cluster != nil && len(c.Cluster.Replicas) > 0 }
