// Natsgo is nats.go's side of the benchmark, and prepares the queues of all sides. It reads one JSON command a line
// and answers each with one line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	consumer = "workers"
	patience = 30 * time.Second
)

type command struct {
	Op      string `json:"op"`
	Stream  string `json:"stream"`
	N       int    `json:"n"`
	Count   int    `json:"count"`
	Payload string `json:"payload"`
}

// answer holds nanoseconds.
type answer struct {
	Reserve []int64 `json:"reserve,omitempty"`
	Read    []int64 `json:"read,omitempty"`
	Ack     []int64 `json:"ack,omitempty"`
	Publish int64   `json:"publish,omitempty"`
	Crowd   int64   `json:"crowd,omitempty"`
}

func main() {
	if err := run(os.Args[1], os.Args[2] == "old"); err != nil {
		log.Fatal(err)
	}
}

func run(url string, old bool) error {
	nc, err := nats.Connect(url, nats.Name("bench nats.go"), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	b := &bench{nc: nc, js: js, old: old, fetchers: make(map[string]fetcher)}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			return err
		}
		a, err := b.obey(c)
		if err != nil {
			return fmt.Errorf("%+v: %w", c, err)
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

type bench struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	old      bool
	fetchers map[string]fetcher
}

// task is a message, whichever interface it came by.
type task struct {
	data []byte
	ack  func() error
}

type fetcher func(n int) ([]task, error)

func (b *bench) obey(c command) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch c.Op {
	case "create":
		return answer{}, b.create(ctx, c.Stream)
	case "refill":
		stream, err := b.js.Stream(ctx, c.Stream)
		if err != nil {
			return answer{}, err
		}
		if err := stream.Purge(ctx); err != nil {
			return answer{}, err
		}
		_, err = b.publish(ctx, c)
		return answer{}, err
	case "publish":
		return b.publish(ctx, c)
	case "reserve":
		return b.reserve(c)
	case "crowd":
		return b.crowd(c)
	}
	return answer{}, errors.New("no such command")
}

// create makes the queue as the application does.
func (b *bench) create(ctx context.Context, name string) error {
	stream, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name}, Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
		MaxAge: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Minute, MaxDeliver: 2,
		MaxAckPending: 1000, FilterSubject: name,
	})
	return err
}

func (b *bench) publish(ctx context.Context, c command) (answer, error) {
	data := []byte(c.Payload)
	futures := make([]jetstream.PubAckFuture, 0, c.Count)
	began := time.Now()
	for range c.Count {
		var options []jetstream.PublishOpt
		if !b.old { // what natslease does: a message can be sent again without being stored twice
			options = append(options, jetstream.WithMsgID(nuid.Next()))
		}
		future, err := b.js.PublishAsync(c.Stream, data, options...)
		if err != nil {
			return answer{}, err
		}
		futures = append(futures, future)
	}
	select {
	case <-b.js.PublishAsyncComplete():
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	took := time.Since(began)
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return answer{}, err
		}
	}
	return answer{Publish: took.Nanoseconds()}, nil
}

func (b *bench) reserve(c command) (answer, error) {
	fetch, err := b.fetcher(c.Stream, 0)
	if err != nil {
		return answer{}, err
	}
	var a answer
	for range c.Count {
		began := time.Now()
		tasks, err := fetch(c.N)
		reserved := time.Now()
		if err != nil {
			return answer{}, err
		}
		size := 0
		for _, t := range tasks {
			size += len(t.data)
		}
		read := time.Now()
		if len(tasks) != c.N || size == 0 {
			return answer{}, fmt.Errorf("%d tasks of %d bytes", len(tasks), size)
		}
		settle := time.Now()
		if err := ackAll(tasks); err != nil {
			return answer{}, err
		}
		a.Ack = append(a.Ack, time.Since(settle).Nanoseconds())
		a.Reserve = append(a.Reserve, reserved.Sub(began).Nanoseconds())
		a.Read = append(a.Read, read.Sub(began).Nanoseconds())
	}
	return a, nil
}

// crowd has goroutines reserve one task after the other, each with a fetcher of its own.
func (b *bench) crowd(c command) (answer, error) {
	fetchers := make([]fetcher, c.N)
	for i := range fetchers {
		var err error
		if fetchers[i], err = b.fetcher(c.Stream, i+1); err != nil {
			return answer{}, err
		}
	}
	errs := make([]error, c.N)
	var all sync.WaitGroup
	began := time.Now()
	for i, fetch := range fetchers {
		all.Go(func() {
			for range c.Count / c.N {
				if tasks, err := fetch(1); err != nil || len(tasks) != 1 {
					errs[i] = fmt.Errorf("%d tasks: %w", len(tasks), err)
					return
				}
			}
		})
	}
	all.Wait()
	return answer{Crowd: time.Since(began).Nanoseconds()}, errors.Join(errs...)
}

// ackAll confirms all acks, each in a goroutine of its own if there are several.
func ackAll(tasks []task) error {
	if len(tasks) == 1 {
		return tasks[0].ack()
	}
	errs := make([]error, len(tasks))
	var all sync.WaitGroup
	for i, t := range tasks {
		all.Go(func() { errs[i] = t.ack() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// fetcher returns the one with this number, opened when it is first asked for.
func (b *bench) fetcher(stream string, number int) (fetcher, error) {
	key := fmt.Sprint(stream, " ", number)
	if f, ok := b.fetchers[key]; ok {
		return f, nil
	}
	open := b.newFetcher
	if b.old {
		open = b.oldFetcher
	}
	f, err := open(stream)
	b.fetchers[key] = f
	return f, err
}

// newFetcher is package jetstream's Fetch.
func (b *bench) newFetcher(stream string) (fetcher, error) {
	ctx := context.Background()
	c, err := b.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return nil, err
	}
	return func(n int) ([]task, error) {
		batch, err := c.Fetch(n, jetstream.FetchMaxWait(patience))
		if err != nil {
			return nil, err
		}
		tasks := make([]task, 0, n)
		for m := range batch.Messages() {
			tasks = append(tasks, task{data: m.Data(), ack: func() error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				return m.DoubleAck(ctx)
			}})
		}
		return tasks, batch.Error()
	}, nil
}

// oldFetcher is the Fetch of the older interface, which keeps one subscription for all of them.
func (b *bench) oldFetcher(stream string) (fetcher, error) {
	js, err := b.nc.JetStream()
	if err != nil {
		return nil, err
	}
	s, err := js.PullSubscribe(stream, "", nats.Bind(stream, consumer))
	if err != nil {
		return nil, err
	}
	return func(n int) ([]task, error) {
		messages, err := s.Fetch(n, nats.MaxWait(patience))
		if err != nil {
			return nil, err
		}
		tasks := make([]task, 0, n)
		for _, m := range messages {
			tasks = append(tasks, task{data: m.Data, ack: func() error { return m.AckSync(nats.AckWait(patience)) }})
		}
		return tasks, nil
	}, nil
}
