//go:build js && wasm

package main

import (
	"context"
	"syscall/js"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// lease is what JavaScript sees of one.
type lease struct {
	AckSubject string `json:"ackSubject"`
	Attempt    int    `json:"attempt"`
	Data       string `json:"data"`
	Expires    int64  `json:"expires"` // milliseconds since 1970, as Date wants them
	ID         string `json:"id"`
}

// methods is the object that JavaScript gets. Calls without a deadline get the client's.
func methods(client *natslease.Client) js.Value {
	ctx := context.Background()
	object := js.Global().Get("Object").New()
	// publish(stream, [text]) creates the queue where it is missing, and returns how many tasks it has taken.
	object.Set("publish", promised(func(arguments []js.Value) (any, error) {
		queue, err := client.Queue(natslease.QueueConfig{Stream: arguments[0].String()})
		if err != nil {
			return nil, err
		}
		if _, err := queue.Ensure(ctx, natslease.ConflictKeep); err != nil {
			return nil, err
		}
		var messages []natslease.Message
		for _, text := range texts(arguments[1]) {
			messages = append(messages, natslease.Message{Data: []byte(text)})
		}
		report, err := queue.Publish(ctx, messages)
		return report.Accepted(), err
	}))
	// reserve(stream, n, seconds) returns up to n leases, after waiting up to so many seconds for the first.
	object.Set("reserve", promised(func(arguments []js.Value) (any, error) {
		queue, err := client.Queue(natslease.QueueConfig{Stream: arguments[0].String()})
		if err != nil {
			return nil, err
		}
		wait := time.Duration(arguments[2].Float() * float64(time.Second))
		leases, err := queue.Reserve(ctx, arguments[1].Int(), wait)
		found := []lease{}
		for _, l := range leases {
			found = append(found, lease{l.AckSubject, l.Attempt, string(l.Data), l.Expires.UnixMilli(), l.ID})
		}
		return found, err
	}))
	// ack(stream, [ackSubject]) returns a status for each.
	object.Set("ack", promised(func(arguments []js.Value) (any, error) {
		queue, err := client.Queue(natslease.QueueConfig{Stream: arguments[0].String()})
		if err != nil {
			return nil, err
		}
		var items []natslease.SettleItem
		for _, subject := range texts(arguments[1]) {
			items = append(items, natslease.SettleItem{AckSubject: subject})
		}
		results, err := queue.Settle(ctx, natslease.Settlement{Kind: natslease.Ack}, items)
		statuses := []string{}
		for _, result := range results {
			statuses = append(statuses, string(result.Status))
		}
		return statuses, err
	}))
	// queues(pattern) returns the streams whose names match, with their consumers.
	object.Set("queues", promised(func(arguments []js.Value) (any, error) {
		list, err := client.Streams(ctx, natslease.StreamFilter{Pattern: arguments[0].String(), Consumers: true})
		return list.Streams, err
	}))
	// close() ends the connection.
	object.Set("close", promised(func([]js.Value) (any, error) { return nil, client.Close(ctx) }))
	return object
}
