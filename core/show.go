package natslease

import (
	"fmt"
	"io"
	"log/slog"
)

// Without the methods below fmt would print what the types consist of, down to the secrets: it cannot ask the Config in
// an unexported field to print itself.

// String says which client it is, without secrets.
func (c *Client) String() string { return "natslease.Client{" + c.cfg.String() + "}" }

// Format is String for every verb.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue gives log/slog the client's options without secrets.
func (c *Client) LogValue() slog.Value { return c.cfg.LogValue() }

// String names the queue.
func (q *Queue) String() string {
	return fmt.Sprintf("natslease.Queue{Stream:%s Subject:%s Consumer:%s}", q.cfg.Stream, q.cfg.Subject, q.cfg.Consumer)
}

// Format is String for every verb.
func (q *Queue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, q.String()) }

// LogValue gives log/slog the queue's names.
func (q *Queue) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("stream", q.cfg.Stream), slog.String("subject", q.cfg.Subject), slog.String("consumer", q.cfg.Consumer),
	)
}
