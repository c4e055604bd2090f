package natslease

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/nats-io/nats.go"
)

// storedAt says which message of a stream is meant: that of a sequence, the first at or after it under a subject, or the
// last under a subject.
type storedAt struct {
	Seq    uint64 `json:"seq,omitempty"`
	NextOn string `json:"next_by_subj,omitempty"`
	LastOn string `json:"last_by_subj,omitempty"`
}

// storedMessage is a message as it is in its stream.
type storedMessage struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Raw     string    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`

	header nats.Header
}

// stored reads one message. Where there is none the server's refusal is errCodeNoMessage.
func (h *hub) stored(ctx context.Context, stream string, at storedAt) (*storedMessage, *apiError, error) {
	var answer struct {
		Message storedMessage `json:"message"`
	}
	failure, err := h.api(ctx, "STREAM.MSG.GET."+stream, at, &answer)
	if err != nil || failure != nil {
		return nil, failure, err
	}
	m := &answer.Message
	if m.Raw == "" {
		return m, nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(m.Raw)
	if err == nil {
		m.header, err = nats.DecodeHeadersMsg(raw)
	}
	if err != nil {
		return nil, nil, newError(CodeServer, OutcomeNotSent, "the headers of message %d of %s could not be read: %s", m.Seq, stream, err)
	}
	return m, nil, nil
}

// eachStored reads the messages under a subject, the oldest first, until there are no more or visit wants no more.
func (h *hub) eachStored(ctx context.Context, stream, subject string, visit func(m *storedMessage) (more bool, err error)) error {
	for seq := uint64(1); ; {
		m, failure, err := h.stored(ctx, stream, storedAt{Seq: seq, NextOn: subject})
		switch {
		case err != nil:
			return err
		case failure != nil && failure.ErrCode == errCodeNoMessage:
			return nil
		case failure != nil:
			return failure.asError()
		}
		more, err := visit(m)
		if err != nil || !more {
			return err
		}
		seq = m.Seq + 1
	}
}
