package natslease

import (
	"bytes"
	"encoding/json"
)

// readPubAck reads the server's answer to a publish. The second result tells whether it may be sent again.
func readPubAck(data []byte) (PublishResult, bool) {
	if seq, ok := scanPubAck(data); ok {
		return PublishResult{Seq: seq}, false
	}
	var ack struct {
		Seq       uint64    `json:"seq"`
		Duplicate bool      `json:"duplicate"`
		Error     *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return PublishResult{Err: newError(CodeServer, OutcomeUnknown, "the server's answer could not be read: %s", err)}, false
	}
	if ack.Error != nil {
		if ack.Error.ErrCode == errCodeDuplicateInProcess {
			return PublishResult{Err: inProcess()}, true
		}
		return PublishResult{Err: ack.Error.asError()}, ack.Error.transient() || ack.Error.Code == 429
	}
	if ack.Duplicate && ack.Seq == 0 { // how servers before 2.12 say the same
		return PublishResult{Err: inProcess()}, true
	}
	return PublishResult{Seq: ack.Seq, Duplicate: ack.Duplicate}, false
}

// inProcess is for a message of which a replicated stream knows the id already, from an earlier try that it has not stored
// yet, and may never: the leader that took it can lose its place. It is neither stored nor a duplicate.
func inProcess() *Error {
	return newError(CodeQueueUnavailable, OutcomeUnknown, "an earlier try to publish it is not decided yet")
}

// scanPubAck reads the answer in the one form that the server writes for a message that is newly stored,
// `{"stream":"S", "seq":1}`; anything else is left to the JSON decoder.
func scanPubAck(data []byte) (seq uint64, ok bool) {
	if bytes.Contains(data, []byte(`"error"`)) {
		return 0, false
	}
	at := bytes.LastIndex(data, []byte(`"seq":`))
	if at < 0 {
		return 0, false
	}
	rest := data[at+len(`"seq":`):]
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		seq = seq*10 + uint64(rest[n]-'0')
		n++
	}
	if n == 0 || n > 19 || n == len(rest) {
		return 0, false
	}
	if rest[n] == '}' && n+1 == len(rest) {
		return seq, true
	}
	return 0, false
}
