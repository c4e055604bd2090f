//go:build js && wasm

package main

import (
	"context"
	"net"

	"github.com/coder/websocket"
)

// dialer opens connections as WebSockets of the browser, or of Node. What a connection carries is NATS's own protocol:
// the server's WebSocket listener takes it out of the messages.
type dialer struct{ url string }

func (d *dialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	socket, _, err := websocket.Dial(ctx, d.url, nil)
	if err != nil {
		return nil, err
	}
	// The connection outlives the call that has opened it.
	return websocket.NetConn(context.Background(), socket, websocket.MessageBinary), nil
}
