// Worker works on a queue for ever and survives a restart of the server: a lost session fails the call that was in
// flight, and the next call dials afresh. It ends by SIGTERM or Ctrl-C, giving back what it has not started.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	var cfg natslease.Config
	if url := os.Getenv("NATS_URL"); url != "" {
		cfg.Servers = []string{url}
	}
	client, err := natslease.New(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(context.Background()) }()
	queue, err := client.Queue(natslease.QueueConfig{Stream: "images"})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		leases, err := reserve(ctx, queue)
		if err != nil {
			if wait, ok := retryIn(err); ok {
				log.Printf("%v; trying again in %s", err, wait)
				pause(ctx, wait)
				continue
			}
			return err
		}
		for _, lease := range leases {
			handle(ctx, lease)
		}
	}
	return nil
}

func reserve(ctx context.Context, queue *natslease.Queue) ([]*natslease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return queue.Reserve(ctx, 8, 2*time.Second)
}

// retryIn says how long to wait before trying again, and whether that makes sense at all.
func retryIn(err error) (time.Duration, bool) {
	var e *natslease.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	switch e.Code {
	case natslease.CodeCanceled:
		return 0, true
	case natslease.CodeConnectFailed, natslease.CodeConnectionLost, natslease.CodeQueueUnavailable, natslease.CodeDeadline,
		natslease.CodeBusy, natslease.CodeCircuitOpen, natslease.CodeSaturated:
		return max(e.RetryAfter, 200*time.Millisecond), true
	}
	return 0, false
}

func handle(ctx context.Context, lease *natslease.Lease) {
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if ctx.Err() != nil {
		if err := lease.Release(settle); err != nil {
			log.Printf("release: %v", err)
		}
		return
	}
	fmt.Printf("done %s\n", lease.Data)
	if err := lease.Ack(settle); err != nil {
		log.Printf("ack of task %s: %v", lease.ID, err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
