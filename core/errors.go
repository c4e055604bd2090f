package natslease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Outcome answers "was anything done?" for a call that failed.
type Outcome string

const (
	// OutcomeNotSent means that nothing reached the server: it is safe to try again.
	OutcomeNotSent Outcome = "not_sent"
	// OutcomeUnknown means that the server may or may not have done what was asked.
	OutcomeUnknown Outcome = "unknown"
	// OutcomeRejected means that it was refused and will not happen: trying the same again is useless.
	OutcomeRejected Outcome = "rejected"
)

// Code names one kind of failure. The codes are stable and are what other languages map to their error types.
type Code string

// The codes, and what each tells the caller to do.
const (
	CodeAuthentication   Code = "authentication_failed" // correct the credentials
	CodeBusy             Code = "busy"                  // try again after RetryAfter: this process, or the consumer, has too many calls waiting
	CodeCanceled         Code = "canceled"              // the caller cancelled its own context
	CodeCircuitOpen      Code = "circuit_open"          // try again after RetryAfter
	CodeClientClosed     Code = "client_closed"         // the client was closed: open another
	CodeConfig           Code = "config"                // correct the named option or argument
	CodeConflict         Code = "conflict"              // somebody else has written in the meantime
	CodeConnectFailed    Code = "connect_failed"        // no server could be reached
	CodeConnectionLost   Code = "connection_lost"       // the session died under the call; the next call dials afresh
	CodeDeadline         Code = "deadline_exceeded"     // the call's time ran out
	CodeInvalidLease     Code = "invalid_lease"         // that is not a lease of this queue; nothing was sent
	CodeLeaseExpired     Code = "lease_expired"         // the lease ran out: the task may be somebody else's now
	CodeLeaseGone        Code = "lease_gone"            // its stream or consumer no longer exists
	CodePayloadTooLarge  Code = "payload_too_large"     // above what the server or the stream accepts
	CodePermissionDenied Code = "permission_denied"     // the server's permissions forbid it
	CodeQueueNotFound    Code = "queue_not_found"       // the stream or the consumer does not exist
	CodeQueueUnavailable Code = "queue_unavailable"     // no leader, or JetStream is off
	CodeSaturated        Code = "saturated"             // max_ack_pending is reached: settle leases first
	CodeServer           Code = "server_error"          // the server refused for another reason, which Message quotes
	CodeStorageFull      Code = "storage_full"          // the stream, the account or the server has no room
	CodeSuperseded       Code = "superseded"            // a newer worker has taken this worker's place
)

// Error is the error of every failed call. Errors never contain a password, token, seed or credentials file's contents.
type Error struct {
	Code       Code
	Outcome    Outcome
	Operation  string        // what was being done: "reserve", "ack", ...
	Message    string        // what happened, and what to do about it
	RetryAfter time.Duration // when it makes sense to try again; 0 when nothing is known
	Cause      error         // the error underneath, if any

	history string // what the flight recorder saw; see Explain
}

// Error gives operation, message and outcome in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Operation != "" {
		b.WriteString(e.Operation)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	switch e.Outcome {
	case OutcomeNotSent:
		b.WriteString(" (nothing was sent)")
	case OutcomeUnknown:
		b.WriteString(" (it may have happened)")
	case OutcomeRejected:
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is match any *Error of the same code, so that &Error{Code: CodeBusy} works as a target.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Operation == "" && t.Message == ""
}

// Timeout tells whether it was time that ran out, as net.Error does.
func (e *Error) Timeout() bool { return e.Code == CodeDeadline }

// SafeToRetry tells whether the call certainly did nothing.
func (e *Error) SafeToRetry() bool { return e.Outcome == OutcomeNotSent }

// Explain adds to the error what the connection went through just before it, in words and times.
func (e *Error) Explain() string {
	if e.history == "" {
		return e.Error()
	}
	return e.Error() + "\n" + e.history
}

// CodeOf returns the code of err, or "" when err is not one of this package's.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func newError(code Code, outcome Outcome, format string, args ...any) *Error {
	return &Error{Code: code, Outcome: outcome, Message: fmt.Sprintf(format, args...)}
}

func configError(format string, args ...any) *Error {
	return newError(CodeConfig, OutcomeRejected, format, args...)
}

// unsent is e for a call that met it before it had sent anything. What is rejected stays so: trying again is useless.
func (e *Error) unsent() *Error {
	if e.Outcome != OutcomeUnknown {
		return e
	}
	u := *e
	u.Outcome = OutcomeNotSent
	return &u
}

// maybeSent is e for a call that had sent something before.
func (e *Error) maybeSent() *Error {
	if e.Outcome != OutcomeNotSent {
		return e
	}
	u := *e
	u.Outcome = OutcomeUnknown
	return &u
}

// interrupted is the error of a call whose pause between two tries was cut short: the caller's own cancellation, or
// else what the tries had failed with.
func interrupted(ctx context.Context, failed *Error) *Error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		return failed
	}
	e := inOperation("", ctx.Err(), failed.Outcome).(*Error)
	e.Message += "; until then: " + failed.Message
	return e
}

// inOperation returns err as an *Error that names the operation; the innermost name wins.
// A context's own error becomes CodeDeadline or CodeCanceled with the given outcome.
func inOperation(operation string, err error, outcome Outcome) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if e.Operation != "" {
			return e
		}
		named := *e
		named.Operation = operation
		return &named
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e = newError(CodeDeadline, outcome, "the deadline passed before the server answered")
	case errors.Is(err, context.Canceled):
		e = newError(CodeCanceled, outcome, "the caller cancelled it")
	default:
		e = newError(CodeServer, outcome, "%s", redactError(err))
	}
	e.Operation, e.Cause = operation, err
	return e
}
