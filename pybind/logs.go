package pybind

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// maxLogs is how many records are held for Python at most; later ones are counted instead.
const maxLogs = 256

// logs are the core's log records on their way to Python's logging. Python fetches them when an answer has the flag:
// nothing calls into the interpreter from here.
var logs logBuffer

var logger = slog.New(&logs)

type logRecord struct {
	Time    float64        `json:"time"` // seconds since 1970
	Level   int            `json:"level"`
	Message string         `json:"message"` // with the attributes after it
	Attrs   map[string]any `json:"attrs"`   // durations in seconds
}

type logBuffer struct {
	waiting atomic.Bool
	mu      sync.Mutex
	records []logRecord
	dropped int
}

func (b *logBuffer) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (b *logBuffer) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	attrs := make(map[string]any, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		text.WriteString(" ")
		text.WriteString(a.String())
		attrs[a.Key] = plain(a.Value.Resolve())
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.records) == maxLogs {
		b.dropped++
		return nil
	}
	b.records = append(b.records, logRecord{
		Time: float64(r.Time.UnixNano()) / 1e9, Level: int(r.Level), Message: text.String(), Attrs: attrs,
	})
	b.waiting.Store(true)
	return nil
}

// plain is a value as JSON has it: a number, a boolean, or else its text, which shows no secret.
func plain(v slog.Value) any {
	switch v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64:
		return v.Any()
	case slog.KindDuration:
		return v.Duration().Seconds()
	default:
		return v.String()
	}
}

// WithAttrs is part of slog.Handler; the core passes all attributes with the record.
func (b *logBuffer) WithAttrs([]slog.Attr) slog.Handler { return b }

// WithGroup is part of slog.Handler; the core uses no groups.
func (b *logBuffer) WithGroup(string) slog.Handler { return b }

// flagLogs marks an answer when log records wait to be fetched. The answer may be asked for again: it is not changed
// twice.
func flagLogs(answer []byte) []byte {
	if logs.waiting.Load() {
		answer[0] |= answerLogs
	}
	return answer
}

// Logs returns the log records since it was last called, and how many were dropped, as JSON.
func Logs() (answer []byte) {
	defer rescue(&answer)
	logs.mu.Lock()
	records, dropped := logs.records, logs.dropped
	logs.records, logs.dropped = nil, 0
	logs.waiting.Store(false)
	logs.mu.Unlock()
	return encodeValue(struct {
		Dropped int         `json:"dropped"`
		Records []logRecord `json:"records"`
	}{dropped, records})
}
