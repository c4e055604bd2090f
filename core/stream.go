package natslease

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// StreamConfig names a stream that is no queue, and says how Ensure creates it. The zero value of every field but Name
// and Subjects means its default.
type StreamConfig struct {
	// KeyValue makes it a key-value bucket that other clients understand: Name is "KV_<bucket>", Subjects is
	// "$KV.<bucket>.>".
	//
	// Defaults to false.
	KeyValue bool

	// MaxAge is how long an entry stays.
	//
	// Defaults to 0: without end.
	MaxAge time.Duration

	// MaxBytes is how large the stream can be, in bytes: then the oldest entries go.
	//
	// Defaults to 0: no limit.
	MaxBytes int64

	// MaxPerSubject is how many entries of one subject stay.
	//
	// Defaults to 0: no limit; 1 for a bucket.
	MaxPerSubject int64

	// Name is the name of the stream. It is required.
	Name string

	// Replicas is how many servers of a cluster keep the stream, 1 to 5.
	//
	// Defaults to 1.
	Replicas int

	// Subjects are what the stream takes; they may have wildcards. They are required.
	Subjects []string
}

// Stream is a stream that is no queue: a log of events, or a bucket of records by key. It is safe for concurrent use.
type Stream struct {
	client *Client
	hub    *hub
	cfg    StreamConfig
}

// Entry is one message of a stream.
type Entry struct {
	Subject string
	Data    []byte
	Seq     uint64    // set by the server
	Stored  time.Time // by the server's clock
}

// Stream names a stream; it checks the options and does no I/O.
func (c *Client) Stream(cfg StreamConfig) (*Stream, error) {
	var p problems
	p.check("Name", checkName(cfg.Name))
	if cfg.MaxAge != 0 {
		p.atLeast("MaxAge", cfg.MaxAge, shortestAge)
	}
	if cfg.MaxBytes < 0 {
		p.add("MaxBytes", "is %d: it must not be negative", cfg.MaxBytes)
	}
	cfg.Replicas = orDefault(cfg.Replicas, 1)
	if cfg.Replicas < 1 || cfg.Replicas > maxReplicas {
		p.add("Replicas", "is %d: it must be from 1 to %d", cfg.Replicas, maxReplicas)
	}
	if len(cfg.Subjects) == 0 {
		p.add("Subjects", "has none")
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if cfg.KeyValue {
		cfg.MaxPerSubject = orDefault(cfg.MaxPerSubject, 1)
	}
	cfg.Subjects = slices.Clone(cfg.Subjects)
	return &Stream{client: c, hub: c.hub, cfg: cfg}, nil
}

// newStream is what the server is asked to make.
type newStream struct {
	Name          string        `json:"name"`
	Subjects      []string      `json:"subjects"`
	Retention     string        `json:"retention"`
	Storage       string        `json:"storage"`
	Discard       string        `json:"discard"`
	Replicas      int           `json:"num_replicas"`
	MaxAge        time.Duration `json:"max_age"`
	MaxBytes      int64         `json:"max_bytes"`
	MaxPerSubject int64         `json:"max_msgs_per_subject"`
	Duplicates    time.Duration `json:"duplicate_window"`
	AllowDirect   bool          `json:"allow_direct"`
	AllowRollup   bool          `json:"allow_rollup_hdrs"`
	DenyDelete    bool          `json:"deny_delete"`
}

// Ensure creates the stream if it is missing. One that exists is left as it is.
func (s *Stream) Ensure(ctx context.Context) error {
	return s.call(ctx, "ensure", func(ctx context.Context) error {
		failure, err := s.hub.api(ctx, "STREAM.INFO."+s.cfg.Name, nil, nil)
		if err != nil || failure == nil {
			return err
		}
		if failure.ErrCode != errCodeStreamNotFound {
			return failure.asError()
		}
		discard := "old"
		if s.cfg.KeyValue {
			discard = "new"
		}
		want := newStream{
			Name: s.cfg.Name, Subjects: s.cfg.Subjects, Retention: "limits", Storage: "file", Discard: discard,
			Replicas: s.cfg.Replicas, MaxAge: s.cfg.MaxAge, MaxBytes: unlimited(s.cfg.MaxBytes),
			MaxPerSubject: unlimited(s.cfg.MaxPerSubject), Duplicates: s.remembers(),
			AllowDirect: s.cfg.KeyValue, AllowRollup: s.cfg.KeyValue, DenyDelete: s.cfg.KeyValue,
		}
		failure, err = s.hub.api(ctx, "STREAM.CREATE."+s.cfg.Name, want, nil)
		if err != nil || failure == nil || failure.ErrCode == errCodeStreamNameInUse { // somebody else was faster
			return err
		}
		return failure.asError()
	})
}

// remembers is for how long the stream knows ids again.
func (s *Stream) remembers() time.Duration {
	if s.cfg.MaxAge > 0 {
		return min(s.cfg.MaxAge, defaultDuplicateWindow)
	}
	return defaultDuplicateWindow
}

// Append stores entries, and returns what became of each.
func (s *Stream) Append(ctx context.Context, entries []Entry) ([]PublishResult, error) {
	out := make([]outgoing, len(entries))
	for i := range entries {
		out[i] = s.outgoing(&entries[i])
	}
	var results []PublishResult
	err := s.call(ctx, "append", func(ctx context.Context) error {
		results = s.hub.publish(ctx, s.cfg.Name, s.remembers(), out)
		return nil
	})
	return results, err
}

// AppendAfter stores an entry if the last one of its subject has the given sequence, 0 when there must be none, and
// returns the new one's. Otherwise it fails with CodeConflict: somebody else was faster.
func (s *Stream) AppendAfter(ctx context.Context, entry Entry, last uint64) (uint64, error) {
	out := s.outgoing(&entry)
	out.header[headerExpectedLast] = []string{strconv.FormatUint(last, 10)}
	var seq uint64
	err := s.call(ctx, "append", func(ctx context.Context) error {
		result := s.hub.publish(ctx, s.cfg.Name, s.remembers(), []outgoing{out})[0]
		seq = result.Seq
		if result.Err != nil { // else a nil *Error would become an error
			return result.Err
		}
		return nil
	})
	return seq, err
}

const headerExpectedLast = "Nats-Expected-Last-Subject-Sequence"

func (s *Stream) outgoing(e *Entry) outgoing {
	out := outgoing{subject: e.Subject, data: e.Data, header: nats.Header{headerMessageID: {randomID()}}}
	if finding := checkSubject(e.Subject, maxSubject); finding != "" {
		out.invalid = configError("the subject %s", finding)
	}
	if s.cfg.KeyValue && s.hub.cfg.Domain != "" {
		out.subject = s.hub.cfg.apiPrefix() + out.subject // how a bucket of another domain is reached
	}
	return out
}

// Last returns the last entry of a subject, nil when there is none.
func (s *Stream) Last(ctx context.Context, subject string) (*Entry, error) {
	var last *Entry
	err := s.call(ctx, "last", func(ctx context.Context) error {
		m, err := s.hub.storedOrNil(ctx, s.cfg.Name, storedAt{LastOn: subject})
		if m != nil {
			last = m.entry()
		}
		return err
	})
	return last, err
}

func (m *storedMessage) entry() *Entry {
	return &Entry{Subject: m.Subject, Data: m.Data, Seq: m.Seq, Stored: m.Time}
}

// Info asks the server about the stream.
func (s *Stream) Info(ctx context.Context) (StreamInfo, error) {
	var info StreamInfo
	err := s.call(ctx, "info", func(ctx context.Context) error {
		var answer listedStream
		failure, err := s.hub.api(ctx, "STREAM.INFO."+s.cfg.Name, nil, &answer)
		if err == nil && failure != nil {
			err = failure.asError()
		}
		if err != nil {
			return err
		}
		info, err = answer.shown()
		return err
	})
	return info, err
}

const (
	// readAhead is how far, in sequences, Each reads before it shows what it has read.
	readAhead = 2048
	// readers is how many requests Each has under way.
	readers = 8
)

// Each shows the entries under a subject, which may have wildcards, from a sequence on (see SeqAt), the oldest first,
// until there are no more or visit wants no more. A record of a bucket that is written meanwhile may come twice.
func (s *Stream) Each(ctx context.Context, subject string, from uint64, visit func(*Entry) (more bool)) error {
	return s.call(ctx, "read", func(ctx context.Context) error {
		for seq := max(from, 1); ; {
			first, err := s.hub.storedOrNil(ctx, s.cfg.Name, storedAt{Seq: seq, NextOn: subject})
			if err != nil || first == nil {
				return err
			}
			var entries []*Entry
			seq = first.Seq
			if s.cfg.KeyValue {
				// Records that are written meanwhile move to the end: one after the other, none is missed.
				seq++
			} else if entries, err = s.readFrom(ctx, subject, seq); err == nil {
				seq += readAhead
			}
			if err != nil {
				return err
			}
			for _, e := range append([]*Entry{first.entry()}, entries...) {
				if !visit(e) {
					return nil
				}
			}
		}
	})
}

// SeqAt returns the sequence of the first entry that was stored at a time or later; one more than the last, if all are
// older.
func (s *Stream) SeqAt(ctx context.Context, at time.Time) (uint64, error) {
	var found uint64
	err := s.call(ctx, "read", func(ctx context.Context) error {
		var info streamInfo
		failure, err := s.hub.api(ctx, "STREAM.INFO."+s.cfg.Name, nil, &info)
		if err == nil && failure != nil {
			err = failure.asError()
		}
		// All before low are older; none from high on is.
		low, high := info.State.FirstSeq, info.State.LastSeq+1
		for err == nil && low < high {
			middle := low + (high-low)/2
			var m *storedMessage
			m, err = s.hub.storedOrNil(ctx, s.cfg.Name, storedAt{Seq: middle, NextOn: ">"})
			switch {
			case err != nil:
			case m == nil || m.Seq >= high || !m.Time.Before(at):
				high = middle
			default:
				low = m.Seq + 1
			}
		}
		found = low
		return err
	})
	return found, err
}

// readFrom reads what comes after an entry, up to readAhead.
func (s *Stream) readFrom(ctx context.Context, subject string, seq uint64) ([]*Entry, error) {
	var parts [readers][]*Entry
	reading, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		from := seq + uint64(i)*readAhead/readers
		end := from + readAhead/readers
		reading.Go(func() error {
			for at := max(from, seq+1); at < end; {
				m, err := s.hub.storedOrNil(ctx, s.cfg.Name, storedAt{Seq: at, NextOn: subject})
				if err != nil || m == nil || m.Seq >= end {
					return err
				}
				parts[i] = append(parts[i], m.entry())
				at = m.Seq + 1
			}
			return nil
		})
	}
	err := reading.Wait()
	var all []*Entry
	for _, part := range parts {
		all = append(all, part...)
	}
	return all, err
}

// call gives a call its deadline, its place among the calls in flight, and its name.
func (s *Stream) call(ctx context.Context, operation string, do func(ctx context.Context) error) error {
	ctx, cancel, err := s.client.begin(ctx, s.hub.calling)
	if err != nil {
		return inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	err = do(ctx)
	if CodeOf(err) == CodeQueueNotFound && !strings.Contains(err.Error(), s.cfg.Name) {
		err = newError(CodeQueueNotFound, OutcomeRejected, "the stream %s does not exist", s.cfg.Name)
	}
	return inOperation(operation, err, OutcomeUnknown)
}
