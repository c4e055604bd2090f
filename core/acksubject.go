package natslease

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// AckSubject is what an ack subject says: the delivery that it settles.
type AckSubject struct {
	Domain      string // "" in the short form, and where there is none
	Account     string // a hash of the account's name; "" in the short form
	Stream      string
	Consumer    string
	Delivered   uint64 // 1 for the first delivery
	StreamSeq   uint64
	ConsumerSeq uint64
	Published   time.Time
	Pending     uint64 // tasks behind this one when it was delivered
}

const (
	ackPrefix = "$JS.ACK."
	// maxAckSubject has room for three names of maxNameLen, five numbers and an account's hash.
	maxAckSubject = 1_024
	ackTokens     = 9  // $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>
	ackTokensLong = 11 // the same with <domain or _>.<account hash> after ACK; what follows the 11th is ignored
)

// ParseAckSubject reads an ack subject of either form. It accepts only what a server writes: whatever is published to an
// accepted subject can do nothing but settle a delivery of that stream and consumer. Its error is an *Error of
// CodeInvalidLease.
func ParseAckSubject(s string) (AckSubject, error) {
	if len(s) > maxAckSubject {
		return AckSubject{}, invalidLease(s, "it is too long")
	}
	rest, ok := strings.CutPrefix(s, ackPrefix)
	if !ok {
		return AckSubject{}, invalidLease(s, "it does not begin with "+ackPrefix)
	}
	// The tokens after the prefix; those beyond the long form are checked but not kept.
	var tokens [ackTokensLong - 2]string
	count := 0
	for more := true; more; count++ {
		var token string
		token, rest, more = strings.Cut(rest, ".")
		if !isToken(token) {
			return AckSubject{}, invalidLease(s, "a part of it is empty or has a forbidden character")
		}
		if count < len(tokens) {
			tokens[count] = token
		}
	}
	var a AckSubject
	own := tokens[:]
	switch {
	case count == ackTokens-2:
	case count >= ackTokensLong-2:
		if tokens[0] != "_" {
			a.Domain = tokens[0]
		}
		a.Account = tokens[1]
		own = tokens[2:]
	default:
		return AckSubject{}, invalidLease(s, "it has the wrong number of parts")
	}
	a.Stream, a.Consumer = own[0], own[1]
	if len(a.Stream) > maxNameLen || len(a.Consumer) > maxNameLen || strings.ContainsAny(a.Stream, `/\`) || strings.ContainsAny(a.Consumer, `/\`) {
		return AckSubject{}, invalidLease(s, "it has no valid stream and consumer")
	}
	var numbers [5]uint64
	for i := range numbers {
		n, ok := parseDecimal(own[2+i])
		// Only the pending count, which is the last, and the time can be 0.
		if !ok || n == 0 && i < 3 {
			return AckSubject{}, invalidLease(s, "it has an invalid number")
		}
		numbers[i] = n
	}
	if numbers[0] > math.MaxInt32 || numbers[3] > math.MaxInt64 {
		return AckSubject{}, invalidLease(s, "it has an invalid number")
	}
	a.Delivered, a.StreamSeq, a.ConsumerSeq, a.Pending = numbers[0], numbers[1], numbers[2], numbers[4]
	a.Published = time.Unix(0, int64(numbers[3]))
	return a, nil
}

// isToken is checkToken for the hot path.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return checkToken(s) == ""
		case c <= ' ', c == 0x7f, c == '*', c == '>', c == '.':
			return false
		}
	}
	return true
}

// parseDecimal reads a number as the server writes it: digits only, no leading zeros, so that no two texts are one lease.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || len(s) > 20 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		d := uint64(s[i] - '0')
		if s[i] < '0' || s[i] > '9' || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func invalidLease(s, why string) *Error {
	return newError(CodeInvalidLease, OutcomeRejected, "%s is no ack subject: %s", excerpt(s), why)
}
