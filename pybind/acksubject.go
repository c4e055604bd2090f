package pybind

import natslease "github.com/RolnickLab/natslease/core"

// ackSubject has the fields of natslease.AckSubject under their Python names.
type ackSubject struct {
	Attempt     uint64 `json:"attempt"`
	Consumer    string `json:"consumer"`
	ConsumerSeq uint64 `json:"consumer_seq"`
	Domain      string `json:"domain"`
	Published   int64  `json:"published"`
	Seq         uint64 `json:"seq"`
	Stream      string `json:"stream"`
}

// ParseAckSubject returns what an ack subject says. It does no I/O.
func ParseAckSubject(subject []byte) (answer []byte) {
	defer rescue(&answer)
	a, err := natslease.ParseAckSubject(string(subject))
	if err != nil {
		return encodeError(err)
	}
	return encodeValue(ackSubject{
		Attempt: a.Delivered, Consumer: a.Consumer, ConsumerSeq: a.ConsumerSeq, Domain: a.Domain,
		Published: a.Published.UnixNano(), Seq: a.StreamSeq, Stream: a.Stream,
	})
}
