// Package fleet knows the workers of a natslease system: which there are, which of them may go on (a newer worker in the
// same place fences the older), and who took what.
//
// What it knows is in NATS: a key-value bucket with one record for each worker, and a stream of events. It is built on
// the public API of package natslease.
package fleet

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

const (
	defaultBucket    = "natslease_workers"
	defaultEvents    = "natslease_events"
	defaultHeartbeat = 20 * time.Second
	defaultOnline    = time.Minute
	defaultStale     = time.Hour
	defaultKeep      = 7 * 24 * time.Hour
	defaultMaxBytes  = 256 << 20
)

// Config has the options of a Fleet. The zero value of every field means its default.
type Config struct {
	// Bucket is the name of the key-value bucket with the workers' records.
	//
	// Defaults to "natslease_workers".
	Bucket string

	// Events is the name of the stream of events, and what its subjects begin with.
	//
	// Defaults to "natslease_events".
	Events string

	// Heartbeat is how often a worker's record is renewed.
	//
	// Defaults to 20 seconds.
	Heartbeat time.Duration

	// Keep is how long records and events stay.
	//
	// Defaults to 7 days.
	Keep time.Duration

	// MaxBytes is how large the stream of events can be: then the oldest go.
	//
	// Defaults to 256 MiB.
	MaxBytes int64

	// OnlineFor is how long after its last sign of life a worker is online.
	//
	// Defaults to 1 minute.
	OnlineFor time.Duration

	// Replicas is how many servers of a cluster keep records and events, 1 to 5.
	//
	// Defaults to 1.
	Replicas int

	// StaleFor is how long after its last sign of life a worker is stale; after that it is offline.
	//
	// Defaults to 1 hour.
	StaleFor time.Duration
}

func (c Config) withDefaults() (Config, error) {
	for field, fallback := range map[*time.Duration]time.Duration{
		&c.Heartbeat: defaultHeartbeat, &c.Keep: defaultKeep, &c.OnlineFor: defaultOnline, &c.StaleFor: defaultStale,
	} {
		if *field == 0 {
			*field = fallback
		}
	}
	if c.Bucket == "" {
		c.Bucket = defaultBucket
	}
	if c.Events == "" {
		c.Events = defaultEvents
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	var wrong []string
	for name, value := range map[string]string{"Bucket": c.Bucket, "Events": c.Events} {
		if strings.Trim(value, nameRunes) != "" {
			wrong = append(wrong, fmt.Sprintf("%s: is %q: only letters, digits, - and _ are allowed", name, value))
		}
	}
	switch {
	case c.Heartbeat < 10*time.Millisecond:
		wrong = append(wrong, fmt.Sprintf("Heartbeat: is %s: it must be at least 10ms", c.Heartbeat))
	case c.OnlineFor < c.Heartbeat:
		wrong = append(wrong, fmt.Sprintf("OnlineFor: is %s: it must be longer than Heartbeat, %s", c.OnlineFor, c.Heartbeat))
	case c.StaleFor < c.OnlineFor:
		wrong = append(wrong, fmt.Sprintf("StaleFor: is %s: it must be longer than OnlineFor, %s", c.StaleFor, c.OnlineFor))
	case c.Keep < c.StaleFor:
		wrong = append(wrong, fmt.Sprintf("Keep: is %s: it must be longer than StaleFor, %s", c.Keep, c.StaleFor))
	}
	if wrong != nil {
		return c, refused(natslease.CodeConfig, "%s", strings.Join(wrong, "; "))
	}
	return c, nil
}

const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// Fleet is the workers of one NATS system. It is safe for concurrent use.
type Fleet struct {
	client *natslease.Client
	cfg    Config
	bucket *natslease.Stream
	events *natslease.Stream
	writer *writer

	mu      sync.Mutex
	renewed map[string]renewal // by key
}

// renewal is when this process has last written the record of another process's worker.
type renewal struct {
	epoch uint64
	at    time.Time
}

// New checks the options and does no I/O.
func New(client *natslease.Client, cfg Config) (*Fleet, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Fleet{client: client, cfg: cfg, renewed: make(map[string]renewal)}
	f.bucket, err = client.Stream(natslease.StreamConfig{
		KeyValue: true, MaxAge: cfg.Keep, Name: "KV_" + cfg.Bucket, Replicas: cfg.Replicas, Subjects: []string{f.key("") + ">"},
	})
	if err != nil {
		return nil, err
	}
	f.events, err = client.Stream(natslease.StreamConfig{
		MaxAge: cfg.Keep, MaxBytes: cfg.MaxBytes, Name: cfg.Events, Replicas: cfg.Replicas, Subjects: []string{cfg.Events + ".>"},
	})
	if err != nil {
		return nil, err
	}
	f.writer = newWriter(f)
	return f, nil
}

// Config returns the options with their defaults filled in.
func (f *Fleet) Config() Config { return f.cfg }

// Ensure creates the bucket and the stream of events if they are missing.
func (f *Fleet) Ensure(ctx context.Context) error {
	if err := f.bucket.Ensure(ctx); err != nil {
		return err
	}
	return f.events.Ensure(ctx)
}

// Close writes the events that have not been written yet, and ends the goroutine that writes them.
func (f *Fleet) Close(ctx context.Context) { f.writer.close(ctx) }

// Stats counts events: those written, and those given up because the stream was away or too slow.
func (f *Fleet) Stats() (written, dropped uint64) {
	return f.writer.written.Load(), f.writer.dropped.Load()
}

func refused(code natslease.Code, format string, args ...any) *natslease.Error {
	return &natslease.Error{Code: code, Outcome: natslease.OutcomeRejected, Message: fmt.Sprintf(format, args...)}
}
