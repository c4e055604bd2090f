package natslease

import (
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// isPlain tells whether what is written to the connection is the protocol itself.
func isPlain(nc *nats.Conn) bool {
	_, noTLS := nc.TLSConnectionState()
	return noTLS != nil && !strings.HasPrefix(nc.ConnectedUrl(), "ws")
}

// speak writes a message to the wire in one piece. nats.go would write the same, and then wake its flusher, which finds
// nothing left to do: on the way of every call that is two threads too many. Only for a connection without TLS and
// WebSocket frames, of which nats.go knows more.
func (s *session) speak(subject, reply string, header nats.Header, data []byte) error {
	if int64(len(data)) > s.maxPayload {
		return nats.ErrMaxPayload
	}
	buffer := buffers.Get().(*[]byte)
	b := (*buffer)[:0]
	headerSize := 0
	if header == nil {
		b = append(b, "PUB "...)
	} else {
		b = append(b, "HPUB "...)
		headerSize = sizeOf(header)
		if int64(headerSize+len(data)) > s.maxPayload {
			return nats.ErrMaxPayload
		}
	}
	b = append(b, subject...)
	b = append(b, ' ')
	b = append(b, reply...)
	b = append(b, ' ')
	if header != nil {
		b = strconv.AppendInt(b, int64(headerSize), 10)
		b = append(b, ' ')
	}
	b = strconv.AppendInt(b, int64(headerSize+len(data)), 10)
	b = append(b, "\r\n"...)
	if header != nil {
		b = appendHeader(b, header)
	}
	b = append(b, data...)
	b = append(b, "\r\n"...)
	_, err := s.wire.Write(b)
	if cap(b) <= pieceSize {
		*buffer = b
		buffers.Put(buffer)
	}
	if err == nil {
		s.spoken.Add(1)
		s.spokenBytes.Add(uint64(headerSize + len(data)))
	}
	return err
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

const headerLine = "NATS/1.0\r\n"

func sizeOf(header nats.Header) int {
	n := len(headerLine) + len("\r\n")
	for name, values := range header {
		for _, value := range values {
			n += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return n
}

func appendHeader(b []byte, header nats.Header) []byte {
	b = append(b, headerLine...)
	for name, values := range header {
		for _, value := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
