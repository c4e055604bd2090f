package natslease

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"sort"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// listQuestions is how many streams one listing asks about their consumers at a time.
const listQuestions = 8

// StreamFilter says which streams are listed, and what of them.
type StreamFilter struct {
	// Pattern is what the names look like: "*" stands for any characters, "?" for one, "[a-z]" for one of a range.
	//
	// Defaults to "*".
	Pattern string

	// Subject is one that the streams take.
	//
	// Defaults to none: whatever they take.
	Subject string

	// Consumers has each stream's consumers listed, too. It costs at least one request for each stream.
	//
	// Defaults to false.
	Consumers bool
}

// StreamInfo is what the server says of a stream.
type StreamInfo struct {
	Name         string         `json:"name"`
	Subjects     []string       `json:"subjects"`
	Created      time.Time      `json:"created"`
	Messages     uint64         `json:"messages"`
	Bytes        uint64         `json:"bytes"`
	FirstSeq     uint64         `json:"first_seq"`
	LastSeq      uint64         `json:"last_seq"`
	First        time.Time      `json:"first_at"` // when the oldest message was stored; zero when there is none
	Last         time.Time      `json:"last_at"`  // when the newest one was, though it may be gone; zero when there was none
	Retention    string         `json:"retention"`
	Storage      string         `json:"storage"`
	Replicas     int            `json:"replicas"`
	MaxAge       time.Duration  `json:"max_age"`
	Leader       string         `json:"leader"` // "" where there is no cluster
	Away         []string       `json:"away"`   // servers whose replica is offline, or is not heard by the leader
	NumConsumers int            `json:"num_consumers"`
	Consumers    []ConsumerInfo `json:"consumers"` // nil unless they were asked for
	Told         time.Time      `json:"told"`      // when the server said so, by its own clock
}

// ConsumerInfo is what the server says of a consumer.
type ConsumerInfo struct {
	Stream         string        `json:"stream"`
	Name           string        `json:"name"`
	Subjects       []string      `json:"subjects"` // that it is limited to; empty: all of the stream's
	Created        time.Time     `json:"created"`
	NumPending     uint64        `json:"num_pending"`
	NumAckPending  uint64        `json:"num_ack_pending"`
	NumRedelivered uint64        `json:"num_redelivered"`
	NumWaiting     uint64        `json:"num_waiting"`
	AckWait        time.Duration `json:"ack_wait"`
	MaxDeliver     int           `json:"max_deliver"`
	MaxAckPending  int           `json:"max_ack_pending"`
	Away           []string      `json:"away"` // as a stream's
}

// StreamList is the answer of Streams.
type StreamList struct {
	Streams []StreamInfo // by name
	Missing []string     // streams of a cluster that have no leader, or whose servers did not answer
}

// Streams lists the streams of the account, page by page. No stream and no error means that there is none, truthfully.
// What is deleted meanwhile may be in the list or not.
func (c *Client) Streams(ctx context.Context, filter StreamFilter) (StreamList, error) {
	const operation = "streams"
	if filter.Pattern == "" {
		filter.Pattern = "*"
	}
	if err := filter.check(); err != nil {
		return StreamList{}, inOperation(operation, err, OutcomeRejected)
	}
	ctx, cancel, err := c.begin(ctx, c.hub.calling)
	if err != nil {
		return StreamList{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	list, err := c.hub.streams(ctx, filter)
	return list, inOperation(operation, err, OutcomeNotSent)
}

func (f StreamFilter) check() error {
	var p problems
	if _, err := path.Match(f.Pattern, ""); err != nil {
		p.add("Pattern", "%s is no pattern: a bracket is not closed, or a range is not one", excerpt(f.Pattern))
	}
	if f.Subject != "" {
		p.check("Subject", checkSubject(f.Subject, maxSubject))
	}
	return p.err()
}

func (h *hub) streams(ctx context.Context, filter StreamFilter) (StreamList, error) {
	var list StreamList
	request := map[string]any{}
	if filter.Subject != "" {
		request["subject"] = filter.Subject
	}
	matches := func(name string) bool {
		ok, _ := path.Match(filter.Pattern, name) // checked before
		return ok
	}
	err := h.eachPage(ctx, "STREAM.LIST", request, func(page *listPage) error {
		for i := range page.Streams {
			s, err := page.Streams[i].shown()
			if err != nil {
				return err
			}
			if matches(s.Name) {
				list.Streams = append(list.Streams, s)
			}
		}
		for _, name := range slices.Concat(page.Missing, page.offline()) {
			if matches(name) {
				list.Missing = append(list.Missing, name)
			}
		}
		return nil
	})
	if err != nil {
		return StreamList{}, err
	}
	// A stream that is made or deleted between two pages moves the others: one may have come twice.
	list.Streams = sortedOnce(list.Streams, func(s *StreamInfo) string { return s.Name })
	slices.Sort(list.Missing)
	list.Missing = slices.Compact(list.Missing)
	if filter.Consumers {
		return list, h.addConsumers(ctx, &list)
	}
	return list, nil
}

// addConsumers lists the consumers of all streams, and leaves out the streams that are gone.
func (h *hub) addConsumers(ctx context.Context, list *StreamList) error {
	var mu sync.Mutex
	gone := make(map[string]bool)
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(listQuestions)
	for i := range list.Streams {
		s := &list.Streams[i]
		asking.Go(func() error {
			consumers, err := h.consumers(ctx, s.Name)
			if CodeOf(err) == CodeQueueNotFound {
				mu.Lock()
				gone[s.Name] = true
				mu.Unlock()
				return nil
			}
			s.Consumers = consumers
			return err
		})
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	list.Streams = slices.DeleteFunc(list.Streams, func(s StreamInfo) bool { return gone[s.Name] })
	return nil
}

func (h *hub) consumers(ctx context.Context, stream string) ([]ConsumerInfo, error) {
	consumers := []ConsumerInfo{}
	err := h.eachPage(ctx, "CONSUMER.LIST."+stream, map[string]any{}, func(page *listPage) error {
		for i := range page.Consumers {
			c, err := page.Consumers[i].shown()
			if err != nil {
				return err
			}
			consumers = append(consumers, c)
		}
		return nil
	})
	return sortedOnce(consumers, func(c *ConsumerInfo) string { return c.Name }), err
}

// sortedOnce sorts items by name, and leaves out what is there twice. It uses sort.Slice, which is compiled once for all
// types: the extension must stay small.
func sortedOnce[T any](items []T, name func(*T) string) []T {
	sort.Slice(items, func(i, j int) bool { return name(&items[i]) < name(&items[j]) })
	kept := items[:0]
	for i := range items {
		if len(kept) == 0 || name(&items[i]) != name(&kept[len(kept)-1]) {
			kept = append(kept, items[i])
		}
	}
	return kept
}

// listPage is one page of a listing, of streams or of consumers.
type listPage struct {
	Total     int               `json:"total"`
	Limit     int               `json:"limit"`
	Streams   []listedStream    `json:"streams"`
	Consumers []listedConsumer  `json:"consumers"`
	Missing   []string          `json:"missing"`
	Offline   map[string]string `json:"offline"` // with the reason
}

func (p *listPage) offline() []string {
	var names []string
	for name := range p.Offline {
		names = append(names, name)
	}
	return names
}

// eachPage asks for the pages of a listing, one after the other.
func (h *hub) eachPage(ctx context.Context, subject string, request map[string]any, visit func(*listPage) error) error {
	for offset := 0; ; {
		var page listPage
		request["offset"] = offset
		failure, err := h.api(ctx, subject, request, &page)
		if err == nil && failure != nil {
			err = failure.asError()
		}
		if err == nil {
			err = visit(&page)
		}
		if err != nil {
			return err
		}
		// A page of a cluster has fewer than its limit where servers did not answer.
		offset += max(page.Limit, len(page.Streams)+len(page.Consumers))
		if offset >= page.Total || page.Limit <= 0 {
			return nil
		}
	}
}

type listedStream struct {
	streamInfo
	Told time.Time `json:"ts"`
}

func (l *listedStream) shown() (StreamInfo, error) {
	var config streamConfig
	if err := json.Unmarshal(l.Config, &config); err != nil {
		return StreamInfo{}, newError(CodeServer, OutcomeUnknown, "a stream's configuration could not be read: %s", err)
	}
	s := StreamInfo{
		Name: config.Name, Subjects: config.Subjects, Created: l.Created, Messages: l.State.Messages, Bytes: l.State.Bytes,
		FirstSeq: l.State.FirstSeq, LastSeq: l.State.LastSeq, Last: stamp(l.State.Last), Retention: config.Retention,
		Storage: config.Storage, Replicas: config.Replicas, MaxAge: config.MaxAge, NumConsumers: l.State.Consumers, Told: l.Told,
		Away: l.Cluster.away(),
	}
	if s.Messages > 0 {
		s.First = stamp(l.State.First)
	}
	if l.Cluster != nil {
		s.Leader = l.Cluster.Leader
	}
	return s, nil
}

// stamp is t, or zero where the server has written the beginning of its time, 1970, for none.
func stamp(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t
}

type listedConsumer struct {
	consumerInfo
	Stream  string    `json:"stream_name"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

func (l *listedConsumer) shown() (ConsumerInfo, error) {
	var config consumerConfig
	if err := json.Unmarshal(l.Config, &config); err != nil {
		return ConsumerInfo{}, newError(CodeServer, OutcomeUnknown, "a consumer's configuration could not be read: %s", err)
	}
	c := ConsumerInfo{
		Stream: l.Stream, Name: l.Name, Subjects: config.FilterSubjects, Created: l.Created, NumPending: l.NumPending,
		NumAckPending: l.NumAckPending, NumRedelivered: l.NumRedelivered, NumWaiting: l.NumWaiting,
		AckWait: config.AckWait, MaxDeliver: config.MaxDeliver, MaxAckPending: config.MaxAckPending,
		Away: l.Cluster.away(),
	}
	if config.FilterSubject != "" {
		c.Subjects = []string{config.FilterSubject}
	}
	return c, nil
}

// DeleteStream removes a stream with its consumers and messages. It returns false when there was none.
func (c *Client) DeleteStream(ctx context.Context, name string) (bool, error) {
	const operation = "delete_stream"
	var p problems
	p.check("name", checkName(name))
	if err := p.err(); err != nil {
		return false, inOperation(operation, err, OutcomeRejected)
	}
	ctx, cancel, err := c.begin(ctx, c.hub.calling)
	if err != nil {
		return false, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	existed, err := c.hub.deleteStream(ctx, name)
	return existed, inOperation(operation, err, OutcomeUnknown)
}

func (h *hub) deleteStream(ctx context.Context, name string) (bool, error) {
	failure, err := h.api(ctx, "STREAM.DELETE."+name, nil, nil)
	switch {
	case err != nil:
		return false, err
	case failure == nil:
		return true, nil
	case failure.ErrCode == errCodeStreamNotFound:
		return false, nil
	}
	return false, failure.asError()
}
