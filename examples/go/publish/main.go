// Publish puts ten tasks into a queue and prints what the server said of each.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var cfg natslease.Config
	if url := os.Getenv("NATS_URL"); url != "" {
		cfg.Servers = []string{url}
	}
	client, err := natslease.New(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()
	queue, err := client.Queue(natslease.QueueConfig{Stream: "images", AckWait: 5 * time.Minute})
	if err != nil {
		return err
	}
	if _, err := queue.Ensure(ctx, natslease.ConflictKeep); err != nil {
		return err
	}
	messages := make([]natslease.Message, 10)
	for i := range messages {
		messages[i] = natslease.Message{Data: fmt.Appendf(nil, `{"id": %d}`, i), ID: fmt.Sprintf("run-1:%d", i)}
	}
	report, err := queue.Publish(ctx, messages)
	if err != nil {
		return err
	}
	fmt.Printf("accepted %d, duplicates %d, failed %d\n", report.Accepted(), report.Duplicates(), report.Failed())
	for _, r := range report.Results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}
