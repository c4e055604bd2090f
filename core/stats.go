package natslease

import "runtime"

// Stats is a snapshot of a client's connection and of what it has done. It costs no request.
type Stats struct {
	Connected      bool         `json:"connected"`
	Generation     uint64       `json:"generation"` // of the newest session; counts the sessions opened so far
	Server         string       `json:"server"`     // its URL, without credentials
	ServerName     string       `json:"server_name"`
	ServerVersion  string       `json:"server_version"`
	InFlight       int          `json:"in_flight"` // calls under way, those of all clients that share the connection
	SessionsOpened uint64       `json:"sessions_opened"`
	SessionsLost   uint64       `json:"sessions_lost"`
	DialFailures   uint64       `json:"dial_failures"`
	InMessages     uint64       `json:"in_messages"` // of the newest session, as are the next three
	OutMessages    uint64       `json:"out_messages"`
	InBytes        uint64       `json:"in_bytes"`
	OutBytes       uint64       `json:"out_bytes"`
	LateMessages   uint64       `json:"late_messages"` // tasks that arrived after their call had given up
	Queues         int          `json:"queues"`        // consumers of which something is remembered
	Kept           int          `json:"kept"`          // leases that the keeper extends
	Goroutines     int          `json:"goroutines"`    // of the whole process
	LastError      string       `json:"last_error"`    // what last went wrong with a session or a dial
	Breaker        BreakerStats `json:"breaker"`
}

// Stats returns a snapshot.
func (c *Client) Stats() Stats {
	h := c.hub
	st := Stats{
		Generation:     h.counter.generation.Load(),
		SessionsOpened: h.counter.generation.Load(),
		SessionsLost:   h.counter.lost.Load(),
		DialFailures:   h.counter.dialFailures.Load(),
		LateMessages:   h.counter.late.Load(),
		InFlight:       int(h.reserving.taken.Load() + h.calling.taken.Load()),
		Kept:           h.keeper.count(),
		Goroutines:     runtime.NumGoroutine(),
		Breaker:        h.breaker.stats(),
	}
	if last := h.counter.lastFailure.Load(); last != nil {
		st.LastError = last.err.Error()
	}
	h.mu.Lock()
	st.Queues = len(h.feeds)
	s := h.last
	h.mu.Unlock()
	if s == nil {
		return st
	}
	st.Connected = s.alive()
	st.Server = s.flight.server
	st.ServerName = s.nc.ConnectedServerName()
	st.ServerVersion = s.nc.ConnectedServerVersion()
	traffic := s.nc.Stats()
	st.InMessages, st.OutMessages = traffic.InMsgs, traffic.OutMsgs+s.spoken.Load()
	st.InBytes, st.OutBytes = traffic.InBytes, traffic.OutBytes+s.spokenBytes.Load()
	return st
}
