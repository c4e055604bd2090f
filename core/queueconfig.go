package natslease

import (
	"slices"
	"strings"
	"time"
)

const (
	defaultAckWait         = time.Minute
	defaultDuplicateWindow = 2 * time.Minute
	defaultMaxAckPending   = 1000
	defaultMaxDeliver      = 5
	// maxSubject leaves room for the rest of a control line, of which the server accepts 4,096 bytes: the inbox that
	// the answer goes to (InboxPrefix and about 45 bytes) and two lengths.
	maxSubject = 3_500
	// shortestAge is what the server demands of MaxAge and DuplicateWindow.
	shortestAge = 100 * time.Millisecond
	maxReplicas = 5
)

// QueueConfig names a queue and says how Ensure creates it. The zero value of every field but Stream means its default.
type QueueConfig struct {
	// AckWait is how long a lease lasts: after that a task that was not settled is given to somebody else. A consumer
	// that exists keeps its own, which is then what the leases' clocks use.
	//
	// Defaults to 60 seconds.
	AckWait time.Duration

	// Consumer is the name of the durable pull consumer.
	//
	// Defaults to Stream.
	Consumer string

	// DeadLetters is the name of the stream that Ensure makes for tasks that have failed on their last attempt, under
	// the subjects "<DeadLetters>.>". Queues can share it. See Queue.DeadLetters.
	//
	// Defaults to none: such tasks are given up without a trace but the server's advisory.
	DeadLetters string

	// Discard says what happens at MaxBytes or MaxMessages: "new" refuses what is published, "old" drops the oldest
	// tasks.
	//
	// Defaults to "new".
	Discard string

	// DuplicateWindow is how long the server remembers the ids of messages: a second message with the same id is not
	// stored.
	//
	// Defaults to 2 minutes.
	DuplicateWindow time.Duration

	// MaxAckPending is how many tasks can be leased at the same time, over all takers.
	//
	// Defaults to 1,000.
	MaxAckPending int

	// MaxAge is how long a task stays in the stream.
	//
	// Defaults to 0: until it is settled.
	MaxAge time.Duration

	// MaxBytes is how large the stream can be, in bytes.
	//
	// Defaults to 0: no limit.
	MaxBytes int64

	// MaxDeliver is how often a task is given out before the server gives up on it; -1 means without end.
	//
	// Defaults to 5.
	MaxDeliver int

	// MaxMessages is how many messages the stream can have.
	//
	// Defaults to 0: no limit.
	MaxMessages int64

	// Replicas is how many servers of a cluster keep the stream, 1 to 5.
	//
	// Defaults to 1.
	Replicas int

	// Retention says when a message leaves the stream: "workqueue" when it is settled, "limits" only by MaxAge,
	// MaxBytes and MaxMessages.
	//
	// Defaults to "workqueue".
	Retention string

	// Storage is where the stream is kept: "file" or "memory".
	//
	// Defaults to "file".
	Storage string

	// Stream is the name of the stream. It is required.
	Stream string

	// Subject is what the queue's messages are published to.
	//
	// Defaults to Stream.
	Subject string
}

// withDefaults returns a copy with defaults filled in. Its error, an *Error of CodeConfig, names everything that is wrong.
func (q QueueConfig) withDefaults() (QueueConfig, error) {
	q.AckWait = orDefault(q.AckWait, defaultAckWait)
	q.Consumer = orDefault(q.Consumer, q.Stream)
	q.Discard = orDefault(q.Discard, "new")
	q.DuplicateWindow = orDefault(q.DuplicateWindow, defaultDuplicateWindow)
	q.MaxAckPending = orDefault(q.MaxAckPending, defaultMaxAckPending)
	q.MaxDeliver = orDefault(q.MaxDeliver, defaultMaxDeliver)
	q.Replicas = orDefault(q.Replicas, 1)
	q.Retention = orDefault(q.Retention, "workqueue")
	q.Storage = orDefault(q.Storage, "file")
	q.Subject = orDefault(q.Subject, q.Stream)

	var p problems
	p.timeout("AckWait", q.AckWait)
	if q.DeadLetters != "" {
		p.check("DeadLetters", checkName(q.DeadLetters))
		if q.DeadLetters == q.Stream {
			p.add("DeadLetters", "is the queue's own stream: give it another name")
		}
	}
	p.oneOf("Discard", q.Discard, "new", "old")
	p.atLeast("DuplicateWindow", q.DuplicateWindow, shortestAge)
	if q.MaxAckPending < 0 {
		p.add("MaxAckPending", "is %d: it must not be negative", q.MaxAckPending)
	}
	if q.MaxAge != 0 {
		p.atLeast("MaxAge", q.MaxAge, shortestAge)
	}
	if q.MaxBytes < 0 {
		p.add("MaxBytes", "is %d: it must not be negative", q.MaxBytes)
	}
	if q.MaxDeliver < -1 {
		p.add("MaxDeliver", "is %d: it must be positive, or -1 for no limit", q.MaxDeliver)
	}
	if q.MaxMessages < 0 {
		p.add("MaxMessages", "is %d: it must not be negative", q.MaxMessages)
	}
	if q.Replicas < 1 || q.Replicas > maxReplicas {
		p.add("Replicas", "is %d: it must be from 1 to %d", q.Replicas, maxReplicas)
	}
	p.oneOf("Retention", q.Retention, "workqueue", "limits")
	p.oneOf("Storage", q.Storage, "file", "memory")
	p.check("Stream", checkName(q.Stream))
	// What is taken from Stream is not reported twice.
	if q.Consumer != q.Stream {
		p.check("Consumer", checkName(q.Consumer))
	}
	if q.Subject != q.Stream {
		p.check("Subject", checkQueueSubject(q.Subject))
	}
	return q, p.err()
}

// checkQueueSubject refuses what would publish tasks to the server itself.
func checkQueueSubject(s string) string {
	if finding := checkSubject(s, maxSubject); finding != "" {
		return finding
	}
	if strings.HasPrefix(s, "$") {
		return excerpt(s) + " begins with $: such subjects belong to the server"
	}
	return ""
}

func (p *problems) oneOf(option, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(option, "is %s: use %s", excerpt(value), strings.Join(allowed, " or "))
	}
}

func (p *problems) atLeast(option string, d, least time.Duration) {
	if d < least {
		p.add(option, "is %s: it must be at least %s", d, least)
	}
}
