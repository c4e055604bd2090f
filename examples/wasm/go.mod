// Apart from natslease itself: only this example dials WebSockets.
module github.com/RolnickLab/natslease/examples/wasm

go 1.26.0

replace github.com/RolnickLab/natslease => ../..

require github.com/RolnickLab/natslease v0.0.0-00010101000000-000000000000

require (
	github.com/coder/websocket v1.8.15
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/nats-io/nats.go v1.55.0 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
