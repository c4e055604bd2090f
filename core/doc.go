// Package natslease is a work-queue client for NATS JetStream: timed reserve and confirmed
// settling over one connection per process that never reconnects by itself.
//
// Every call has a deadline and returns by it. Every error is an [*Error] whose Outcome says
// whether anything happened.
package natslease
