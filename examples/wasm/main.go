//go:build js && wasm

// Natslease in a browser or in Node: the same core, over nats-server's WebSocket listener. JavaScript gets one function,
// natslease(url), which returns an object whose methods return Promises, see api.go.
package main

import (
	"net/url"
	"syscall/js"

	natslease "github.com/RolnickLab/natslease/core"
)

func main() {
	js.Global().Set("natslease", exported(func(arguments []js.Value) (js.Value, error) {
		return open(arguments[0].String())
	}))
	select {} // what JavaScript was given lives as long as the page
}

// open makes a client; the first call that needs a connection opens it.
func open(address string) (js.Value, error) {
	where, err := url.Parse(address)
	if err != nil {
		return js.Null(), err
	}
	client, err := natslease.New(natslease.Config{
		Dialer: &dialer{url: address},
		// The browser has done what is between ws:// and NATS: the core speaks plain NATS over the dialer.
		Servers: []string{"nats://" + where.Host},
		Name:    "natslease in WebAssembly",
	})
	if err != nil {
		return js.Null(), err
	}
	return methods(client), nil
}
