package natslease

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Conflict says what Ensure does with a stream or consumer that exists with another configuration.
type Conflict string

const (
	// ConflictKeep leaves what exists as it is.
	ConflictKeep Conflict = "keep"
	// ConflictUpdate changes what exists to what is asked.
	ConflictUpdate Conflict = "update"
	// ConflictError reports every difference as an error and changes nothing.
	ConflictError Conflict = "error"
)

// Queue is one JetStream stream, subject and durable pull consumer. It is safe for concurrent use.
type Queue struct {
	client *Client
	hub    *hub
	cfg    QueueConfig
	feed   *feed
}

func newQueue(c *Client, cfg QueueConfig) *Queue {
	return &Queue{client: c, hub: c.hub, cfg: cfg, feed: c.hub.feed(cfg.Stream, cfg.Consumer)}
}

// Config returns the queue's options with their defaults filled in.
func (q *Queue) Config() QueueConfig { return q.cfg }

// QueueInfo is what the server says of a queue.
type QueueInfo struct {
	Stream         string        `json:"stream"`
	Subject        string        `json:"subject"`
	Consumer       string        `json:"consumer"`
	Created        bool          `json:"created"` // by this call to Ensure
	StreamCreated  time.Time     `json:"stream_created"`
	Messages       uint64        `json:"messages"`
	Bytes          uint64        `json:"bytes"`
	FirstSeq       uint64        `json:"first_seq"`
	LastSeq        uint64        `json:"last_seq"`
	NumPending     uint64        `json:"num_pending"`
	NumAckPending  uint64        `json:"num_ack_pending"`
	NumRedelivered uint64        `json:"num_redelivered"`
	NumWaiting     uint64        `json:"num_waiting"`
	AckWait        time.Duration `json:"ack_wait"`
	MaxDeliver     int           `json:"max_deliver"`
	MaxAckPending  int           `json:"max_ack_pending"`
	Retention      string        `json:"retention"`
	Storage        string        `json:"storage"`
	Replicas       int           `json:"replicas"`
	Leader         string        `json:"leader"` // of the consumer; "" where there is no cluster

	sole bool // the consumer gives out whatever the stream takes
}

// Ensure creates the stream and the consumer, and the stream of dead letters if one is named, where they are missing.
func (q *Queue) Ensure(ctx context.Context, conflict Conflict) (QueueInfo, error) {
	const operation = "ensure"
	switch conflict {
	case ConflictKeep, ConflictUpdate, ConflictError:
	default:
		return QueueInfo{}, inOperation(operation, configError("conflict is %q: use keep, update or error", conflict), OutcomeRejected)
	}
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	stream, madeStream, err := q.ensureStream(ctx, conflict)
	if err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
	}
	if madeStream {
		q.feed.forgetOrigin()
	}
	consumer, madeConsumer, err := q.ensureConsumer(ctx, conflict)
	if err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
	}
	if err := q.ensureDeadLetters(ctx, conflict); err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
	}
	info, err := q.describe(stream, consumer)
	info.Created = madeStream || madeConsumer
	return info, inOperation(operation, err, OutcomeUnknown)
}

func (q *Queue) ensureStream(ctx context.Context, conflict Conflict) (*streamInfo, bool, error) {
	want := streamConfig{
		Name: q.cfg.Stream, Subjects: []string{q.cfg.Subject}, Retention: q.cfg.Retention, Storage: q.cfg.Storage,
		Discard: q.cfg.Discard, Replicas: q.cfg.Replicas, MaxAge: q.cfg.MaxAge, MaxBytes: unlimited(q.cfg.MaxBytes),
		MaxMsgs: unlimited(q.cfg.MaxMessages), Duplicates: q.cfg.DuplicateWindow,
	}
	if want.MaxAge > 0 && want.Duplicates > want.MaxAge {
		want.Duplicates = want.MaxAge // the server refuses a window that is longer than messages live
	}
	var info streamInfo
	failure, err := q.hub.api(ctx, "STREAM.INFO."+q.cfg.Stream, nil, &info)
	if err != nil {
		return nil, false, err
	}
	if failure != nil && failure.ErrCode == errCodeStreamNotFound {
		failure, err = q.hub.api(ctx, "STREAM.CREATE."+q.cfg.Stream, want, &info)
		if err != nil {
			return nil, false, err
		}
		if failure == nil {
			return &info, true, nil
		}
		if failure.ErrCode != errCodeStreamNameInUse {
			return nil, false, failure.asError()
		}
		// Somebody else was faster, with another configuration.
		failure, err = q.hub.api(ctx, "STREAM.INFO."+q.cfg.Stream, nil, &info)
		if err != nil {
			return nil, false, err
		}
	}
	if failure != nil {
		return nil, false, failure.asError()
	}
	var have streamConfig
	if err := json.Unmarshal(info.Config, &have); err != nil {
		return nil, false, newError(CodeServer, OutcomeUnknown, "the stream's configuration could not be read: %s", err)
	}
	if covered(have.Subjects, q.cfg.Subject) {
		want.Subjects = have.Subjects
	} else if conflict == ConflictKeep {
		return nil, false, configError("stream %s takes %s, not the queue's subject %s: change the subject, or use conflict=update",
			q.cfg.Stream, strings.Join(have.Subjects, ", "), q.cfg.Subject)
	} else {
		want.Subjects = append(have.Subjects, q.cfg.Subject)
	}
	err = reconcile(conflict, "stream "+q.cfg.Stream, info.Config, have, want, func(merged json.RawMessage) (*apiError, error) {
		return q.hub.api(ctx, "STREAM.UPDATE."+q.cfg.Stream, merged, &info)
	})
	return &info, false, err
}

func (q *Queue) ensureConsumer(ctx context.Context, conflict Conflict) (*consumerInfo, bool, error) {
	want := consumerConfig{
		Durable: q.cfg.Consumer, Name: q.cfg.Consumer, DeliverPolicy: "all", AckPolicy: "explicit", ReplayPolicy: "instant",
		AckWait: q.cfg.AckWait, MaxDeliver: q.cfg.MaxDeliver, MaxAckPending: q.cfg.MaxAckPending, FilterSubject: q.cfg.Subject,
	}
	type createRequest struct {
		Stream string `json:"stream_name"`
		Config any    `json:"config"`
		Action string `json:"action"`
	}
	create := fmt.Sprintf("CONSUMER.CREATE.%s.%s.%s", q.cfg.Stream, q.cfg.Consumer, q.cfg.Subject)
	info, failure, err := q.consumerInfo(ctx)
	if err != nil {
		return nil, false, err
	}
	if failure != nil && failure.ErrCode == errCodeConsumerNotFound {
		info = new(consumerInfo)
		failure, err = q.hub.api(ctx, create, createRequest{q.cfg.Stream, want, "create"}, info)
		if err != nil {
			return nil, false, err
		}
		if failure == nil {
			q.feed.learn(ctx, info)
			return info, true, nil
		}
		if failure.ErrCode != errCodeConsumerNameInUse && failure.ErrCode != errCodeConsumerExists {
			return nil, false, failure.asError()
		}
		if info, failure, err = q.consumerInfo(ctx); err != nil {
			return nil, false, err
		}
	}
	if failure != nil {
		return nil, false, failure.asError()
	}
	var have consumerConfig
	if err := json.Unmarshal(info.Config, &have); err != nil {
		return nil, false, newError(CodeServer, OutcomeUnknown, "the consumer's configuration could not be read: %s", err)
	}
	if have.AckPolicy != want.AckPolicy {
		return nil, false, configError("consumer %s has ack policy %s: a queue needs explicit", q.cfg.Consumer, have.AckPolicy)
	}
	if have.FilterSubject == "" {
		want.FilterSubject = "" // a consumer of the whole stream serves the queue as well
		create = fmt.Sprintf("CONSUMER.CREATE.%s.%s", q.cfg.Stream, q.cfg.Consumer)
	}
	want.Name, want.Durable, want.DeliverPolicy, want.ReplayPolicy = have.Name, have.Durable, have.DeliverPolicy, have.ReplayPolicy
	err = reconcile(conflict, "consumer "+q.cfg.Consumer, info.Config, have, want, func(merged json.RawMessage) (*apiError, error) {
		failure, err := q.hub.api(ctx, create, createRequest{q.cfg.Stream, merged, "update"}, info)
		if failure == nil && err == nil {
			q.feed.learn(ctx, info)
		}
		return failure, err
	})
	return info, false, err
}

// reconcile does what the conflict rule says about the differences between what is there and what is wanted. An update
// lays the wanted fields over the server's own configuration, so that fields which this package does not know survive.
func reconcile(conflict Conflict, what string, raw json.RawMessage, have, want any,
	update func(merged json.RawMessage) (*apiError, error),
) error {
	differences := configDifferences(have, want)
	if len(differences) == 0 || conflict == ConflictKeep {
		return nil
	}
	if conflict == ConflictError {
		return configError("%s exists with another configuration: %s", what, strings.Join(differences, ", "))
	}
	merged, err := overlay(raw, want)
	if err != nil {
		return newError(CodeServer, OutcomeUnknown, "the configuration of %s could not be read: %s", what, err)
	}
	failure, err := update(merged)
	if err != nil {
		return err
	}
	if failure != nil {
		return failure.asError()
	}
	return nil
}

// Info asks the server about the queue.
func (q *Queue) Info(ctx context.Context) (QueueInfo, error) {
	const operation = "info"
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	var stream streamInfo
	failure, err := q.hub.api(ctx, "STREAM.INFO."+q.cfg.Stream, nil, &stream)
	if err == nil && failure != nil {
		err = failure.asError()
	}
	if err != nil {
		return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
	}
	var info QueueInfo
	for again := false; ; again = true {
		consumer, failure, err := q.consumerInfo(ctx)
		if err == nil && failure != nil {
			err = failure.asError()
		}
		if err != nil {
			return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
		}
		if info, err = q.describe(&stream, consumer); err != nil {
			return QueueInfo{}, inOperation(operation, err, OutcomeUnknown)
		}
		if again || !isBehind(&info, consumer) || !sleep(ctx, countLag) {
			return info, nil
		}
	}
}

// isBehind tells whether the consumer's count misses some of what the stream had confirmed before. Of a stream that
// several queues share, and of messages that were removed before anybody got them, it cannot be told.
func isBehind(info *QueueInfo, c *consumerInfo) bool {
	return info.sole && info.LastSeq > info.NumPending+max(c.Delivered.Stream+1, info.FirstSeq)-1
}

// consumerInfo asks about the consumer, and learns its clock from the answer.
func (q *Queue) consumerInfo(ctx context.Context) (*consumerInfo, *apiError, error) {
	a, err := q.feed.ask(ctx)
	return a.info, a.failure, err
}

func (q *Queue) describe(s *streamInfo, c *consumerInfo) (QueueInfo, error) {
	var sc streamConfig
	var cc consumerConfig
	if err := json.Unmarshal(s.Config, &sc); err != nil {
		return QueueInfo{}, newError(CodeServer, OutcomeUnknown, "the stream's configuration could not be read: %s", err)
	}
	if err := json.Unmarshal(c.Config, &cc); err != nil {
		return QueueInfo{}, newError(CodeServer, OutcomeUnknown, "the consumer's configuration could not be read: %s", err)
	}
	info := QueueInfo{
		Stream: q.cfg.Stream, Subject: q.cfg.Subject, Consumer: q.cfg.Consumer, StreamCreated: s.Created,
		Messages: s.State.Messages, Bytes: s.State.Bytes, FirstSeq: s.State.FirstSeq, LastSeq: s.State.LastSeq,
		NumPending: c.NumPending, NumAckPending: c.NumAckPending, NumRedelivered: c.NumRedelivered, NumWaiting: c.NumWaiting,
		AckWait: cc.AckWait, MaxDeliver: cc.MaxDeliver, MaxAckPending: cc.MaxAckPending,
		Retention: sc.Retention, Storage: sc.Storage, Replicas: sc.Replicas,
	}
	if c.Cluster != nil {
		info.Leader = c.Cluster.Leader
	}
	info.sole = slices.Equal(subjectsOf(&cc, sc.Subjects), sc.Subjects)
	return info, nil
}

// Purge removes the queue's messages from the stream, leased ones too, and returns how many there were.
func (q *Queue) Purge(ctx context.Context) (uint64, error) {
	const operation = "purge"
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return 0, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	var answer struct {
		Purged uint64 `json:"purged"`
	}
	// The subject keeps a stream that is shared by several queues from losing the others' messages.
	request := map[string]string{"filter": q.cfg.Subject}
	failure, err := q.hub.api(ctx, "STREAM.PURGE."+q.cfg.Stream, request, &answer)
	if err == nil && failure != nil {
		err = failure.asError()
	}
	return answer.Purged, inOperation(operation, err, OutcomeUnknown)
}

// Delete removes the consumer and, unless other consumers use it, the stream. It returns false when there was neither.
func (q *Queue) Delete(ctx context.Context) (bool, error) {
	const operation = "delete"
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return false, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	existed, err := q.deleteAll(ctx)
	q.feed.forgetOrigin()
	return existed, inOperation(operation, err, OutcomeUnknown)
}

// DeleteConsumer removes the consumer and leaves the stream. It returns false when there was none.
func (q *Queue) DeleteConsumer(ctx context.Context) (bool, error) {
	const operation = "delete_consumer"
	ctx, cancel, err := q.client.begin(ctx, q.hub.calling)
	if err != nil {
		return false, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	failure, err := q.hub.api(ctx, "CONSUMER.DELETE."+q.cfg.Stream+"."+q.cfg.Consumer, nil, nil)
	switch {
	case err != nil || failure == nil:
	case failure.ErrCode == errCodeStreamNotFound || failure.ErrCode == errCodeConsumerNotFound:
		return false, nil
	default:
		err = failure.asError()
	}
	return err == nil, inOperation(operation, err, OutcomeUnknown)
}

func (q *Queue) deleteAll(ctx context.Context) (bool, error) {
	existed := false
	failure, err := q.hub.api(ctx, "CONSUMER.DELETE."+q.cfg.Stream+"."+q.cfg.Consumer, nil, nil)
	switch {
	case err != nil:
		return existed, err
	case failure == nil:
		existed = true
	case failure.ErrCode == errCodeStreamNotFound:
		return false, nil
	case failure.ErrCode != errCodeConsumerNotFound:
		return existed, failure.asError()
	}
	var names struct {
		Consumers []string `json:"consumers"`
	}
	failure, err = q.hub.api(ctx, "CONSUMER.NAMES."+q.cfg.Stream, nil, &names)
	if err != nil {
		return existed, err
	}
	if failure != nil && failure.ErrCode == errCodeStreamNotFound {
		return existed, nil
	}
	if failure != nil {
		return existed, failure.asError()
	}
	if len(names.Consumers) > 0 {
		return existed, nil
	}
	deleted, err := q.hub.deleteStream(ctx, q.cfg.Stream)
	return existed || deleted, err
}

// unlimited is how the server's configurations spell "no limit".
func unlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}
