package pybind

import (
	"context"
	"encoding/json"

	natslease "github.com/RolnickLab/natslease/core"
)

// streamFilter has the fields of natslease.StreamFilter under their Python names.
type streamFilter struct {
	Pattern   string `json:"pattern"`
	Subject   string `json:"subject"`
	Consumers bool   `json:"consumers"`
}

// Streams lists streams: it takes a filter and returns a value.
func Streams(ticket, timeout, slice, notifier, client int64, filter []byte) (answer []byte) {
	defer rescue(&answer)
	var f streamFilter
	if err := json.Unmarshal(filter, &f); err != nil {
		return encodeError(errMalformed)
	}
	return onClient(call{ticket, timeout, slice, notifier}, client, func(ctx context.Context, c *natslease.Client) ([]byte, func()) {
		list, err := c.Streams(ctx, natslease.StreamFilter(f))
		return value(describeStreams(list), err)
	})
}

// Account returns what the server says of the account.
func Account(ticket, timeout, slice, notifier, client int64) (answer []byte) {
	defer rescue(&answer)
	return onClient(call{ticket, timeout, slice, notifier}, client, func(ctx context.Context, c *natslease.Client) ([]byte, func()) {
		info, err := c.Account(ctx)
		return value(describeAccount(info), err)
	})
}

// DeleteStream returns whether there was such a stream.
func DeleteStream(ticket, timeout, slice, notifier, client int64, name []byte) (answer []byte) {
	defer rescue(&answer)
	stream := string(name) // the bytes are only the caller's for now
	return onClient(call{ticket, timeout, slice, notifier}, client, func(ctx context.Context, c *natslease.Client) ([]byte, func()) {
		return value(c.DeleteStream(ctx, stream))
	})
}

// onClient runs an operation of the client with this handle.
func onClient(c call, handle int64, do func(ctx context.Context, c *natslease.Client) ([]byte, func())) []byte {
	client, ok := clients.get(handle)
	if !ok {
		return encodeError(unknownHandle("client", handle))
	}
	return run(c, func(ctx context.Context) ([]byte, func()) { return do(ctx, client) })
}
