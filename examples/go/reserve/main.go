// Reserve takes the tasks of a queue, prints and acknowledges them, and ends when the queue is empty.
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
	ctx := context.Background() // calls without a deadline get Config.Timeout
	var cfg natslease.Config
	if url := os.Getenv("NATS_URL"); url != "" {
		cfg.Servers = []string{url}
	}
	client, err := natslease.New(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()
	queue, err := client.Queue(natslease.QueueConfig{Stream: "images"})
	if err != nil {
		return err
	}
	for {
		leases, err := queue.Reserve(ctx, 4, 200*time.Millisecond)
		if err != nil {
			return err
		}
		if len(leases) == 0 {
			fmt.Println("the queue is empty")
			return nil
		}
		for _, lease := range leases {
			fmt.Printf("task %s, attempt %d: %s\n", lease.ID, lease.Attempt, lease.Data)
			if err := lease.Ack(ctx); err != nil {
				return err
			}
		}
	}
}
