//go:build linux

package natslease_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// forged is an ack subject that passes for one of the queue "jobs".
const forged = "$JS.ACK.jobs.jobs.1.1.1.1700000000000000000.0"

// large is shared, because making it takes time of its own.
var large = make([]byte, 64<<10)

// much is how many of them are published at once: 8 MiB. The race detector multiplies the cost of memory, which would be
// measured in the place of the code.
var much = 128

func init() {
	if natstest.RaceDetector {
		much = 32
	}
}

// calls are all that a client can be asked to do.
var calls = map[string]func(ctx context.Context, c *natslease.Client, q *natslease.Queue) error{
	"ping": func(ctx context.Context, c *natslease.Client, _ *natslease.Queue) error {
		_, err := c.Ping(ctx)
		return err
	},
	"ensure": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		_, err := q.Ensure(ctx, natslease.ConflictKeep)
		return err
	},
	"info": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		_, err := q.Info(ctx)
		return err
	},
	"publish": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		report, err := q.Publish(ctx, []natslease.Message{{Data: []byte("x")}})
		if err == nil && report.Results[0].Err != nil {
			return report.Results[0].Err
		}
		return err
	},
	"publish much": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		messages := make([]natslease.Message, much)
		for i := range messages {
			messages[i].Data = large
		}
		report, err := q.Publish(ctx, messages)
		if err == nil && report.Results[much-1].Err != nil {
			return report.Results[much-1].Err
		}
		return err
	},
	"reserve": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		_, err := q.Reserve(ctx, 1, 100*time.Millisecond)
		return err
	},
	"reserve any": func(ctx context.Context, c *natslease.Client, q *natslease.Queue) error {
		_, err := c.ReserveAny(ctx, []*natslease.Queue{q}, 1, 100*time.Millisecond)
		return err
	},
	"ack": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		if r := ack(ctx, q, forged); r.Err != nil {
			return r.Err
		}
		return nil
	},
	"release": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		results, err := q.Settle(ctx, natslease.Settlement{Kind: natslease.Release}, []natslease.SettleItem{{AckSubject: forged}})
		if err == nil && results[0].Err != nil {
			return results[0].Err
		}
		return err
	},
	"purge": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		_, err := q.Purge(ctx)
		return err
	},
	"delete": func(ctx context.Context, _ *natslease.Client, q *natslease.Queue) error {
		_, err := q.Delete(ctx)
		return err
	},
}

// Codes that a call may end with when the network fails it.
var outages = []natslease.Code{
	natslease.CodeDeadline, natslease.CodeConnectFailed, natslease.CodeConnectionLost, natslease.CodeCircuitOpen,
	natslease.CodeQueueUnavailable,
}

// scenario is one way for the network to fail: before there is a session, or after.
type scenario struct {
	config func(t *testing.T) natslease.Config
	// fail lets the network fail once the session is open; nil when opening it is what fails.
	fail func(t *testing.T, q *natslease.Queue)
}

func at(url func(t *testing.T) string) func(*testing.T) natslease.Config {
	return func(t *testing.T) natslease.Config {
		t.Helper()
		return natslease.Config{Servers: []string{url(t)}}
	}
}

// behindProxy is a scenario in which a proxy fails under an open session.
func behindProxy(fail func(p *natstest.Proxy)) scenario {
	return behindProxyWith(func(_ *testing.T, p *natstest.Proxy, _ *natslease.Queue) { fail(p) })
}

func behindProxyWith(fail func(t *testing.T, p *natstest.Proxy, q *natslease.Queue)) scenario {
	var p *natstest.Proxy
	return scenario{
		config: func(t *testing.T) natslease.Config {
			p = natstest.NewProxy(t, natstest.Start(t).Addr())
			return natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: time.Minute}
		},
		fail: func(t *testing.T, q *natslease.Queue) { fail(t, p, q) },
	}
}

func scenarios() map[string]scenario {
	frozen := func(silence time.Duration) scenario {
		var p *natstest.Process
		return scenario{
			config: func(t *testing.T) natslease.Config {
				p = natstest.StartProcess(t, natstest.Newest)
				return natslease.Config{Servers: []string{p.URL()}, SilenceTimeout: silence}
			},
			fail: func(*testing.T, *natslease.Queue) { p.Freeze() },
		}
	}
	return map[string]scenario{
		"deaf port":     {config: at(func(t *testing.T) string { return natstest.DeafPort(t).URL() })},
		"half an INFO":  {config: at(func(t *testing.T) string { return natstest.HalfInfo(t).URL() })},
		"INFO only":     {config: at(func(t *testing.T) string { return natstest.InfoOnly(t).URL() })},
		"no accept":     {config: at(func(t *testing.T) string { return "nats://" + natstest.NoAcceptPort(t) })},
		"TLS stalls":    {config: at(func(t *testing.T) string { return natstest.StallTLS(t).URL() })},
		"deaf websocks": {config: at(func(t *testing.T) string { return "ws://" + natstest.DeafPort(t).Addr() })},
		"TLS first stalls": {config: func(t *testing.T) natslease.Config {
			return natslease.Config{Servers: []string{natstest.DeafPort(t).URL()}, TLS: natslease.TLSConfig{First: true}}
		}},
		"several deaf ports": {config: func(t *testing.T) natslease.Config {
			return natslease.Config{Servers: []string{natstest.DeafPort(t).URL(), natstest.DeafPort(t).URL(), natstest.DeafPort(t).URL()}}
		}},
		"DNS hangs": {config: func(t *testing.T) natslease.Config {
			return natslease.Config{Servers: []string{"nats.example.org"}, Dialer: natstest.HangingLookup(t)}
		}},
		"DNS hangs in C": {config: func(t *testing.T) natslease.Config {
			return natslease.Config{Servers: []string{"nats.example.org"}, Dialer: natstest.NewStuckDialer(t)}
		}},
		"greeting byte by byte": {config: func(t *testing.T) natslease.Config {
			p := natstest.NewProxy(t, natstest.Start(t).Addr())
			p.Throttle(50 * time.Millisecond)
			return natslease.Config{Servers: []string{p.URL()}}
		}},
		"frozen":                  frozen(time.Minute),
		"frozen and noticed":      frozen(20 * time.Millisecond),
		"black hole":              behindProxy(func(p *natstest.Proxy) { p.Pause() }),
		"black hole to server":    behindProxy(func(p *natstest.Proxy) { p.Pause(natstest.FromClient) }),
		"black hole from server":  behindProxy(func(p *natstest.Proxy) { p.Pause(natstest.FromServer) }),
		"byte by byte":            behindProxy(func(p *natstest.Proxy) { p.Throttle(50 * time.Millisecond) }),
		"answers byte by byte":    behindProxy(func(p *natstest.Proxy) { p.Throttle(50*time.Millisecond, natstest.FromServer) }),
		"cut and then black hole": behindProxy(func(p *natstest.Proxy) { p.Pause(); p.Cut() }),
		"full socket buffer": behindProxyWith(func(t *testing.T, p *natstest.Proxy, q *natslease.Queue) {
			p.Pause()
			// More than the kernel takes, and left unanswered.
			_ = calls["publish much"](within(t, 200*time.Millisecond), nil, q)
		}),
	}
}

// Every call returns by its deadline, whatever happens to the network.
func TestPromise1Deadline(t *testing.T) {
	t.Parallel()
	const rounds = 5
	var late natstest.Lateness
	t.Run("scenarios", func(t *testing.T) {
		for name, s := range scenarios() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := newClient(t, s.config(t))
				q := named(t, c, natslease.QueueConfig{})
				if s.fail != nil {
					_, err := q.Ensure(within(t, patience), natslease.ConflictKeep)
					require.NoError(t, err)
					s.fail(t, q)
				}
				var wg sync.WaitGroup
				for what, call := range calls {
					wg.Go(func() {
						for range rounds {
							deadline := time.Now().Add(250 * time.Millisecond)
							ctx, cancel := context.WithDeadline(context.Background(), deadline)
							var err error
							late.Measure(deadline, func() { err = call(ctx, c, q) })
							cancel()
							if !isOutage(err) {
								t.Errorf("%s: %v", what, err)
							}
							_ = c.Stats() // takes no lock that the network can hold
						}
					})
				}
				wg.Wait()
				deadline := time.Now().Add(250 * time.Millisecond)
				ctx, cancel := context.WithDeadline(context.Background(), deadline)
				defer cancel()
				late.Measure(deadline, func() { _ = c.Close(ctx) })
			})
		}
	})
	late.Assert(t)
}

func isOutage(err error) bool {
	for _, code := range outages {
		if natslease.CodeOf(err) == code {
			return true
		}
	}
	return false
}

// A call without a deadline gets the client's Timeout.
func TestPromise1DeadlineByDefault(t *testing.T) {
	t.Parallel()
	c := newClient(t, natslease.Config{Servers: []string{natstest.DeafPort(t).URL()}, Timeout: 100 * time.Millisecond})
	q := named(t, c, natslease.QueueConfig{})
	var late natstest.Lateness
	for name, call := range calls {
		longest := 100 * time.Millisecond
		if strings.HasPrefix(name, "reserve") {
			longest += 100 * time.Millisecond // its own wait comes on top
		}
		late.Measure(time.Now().Add(longest), func() {
			err := call(context.Background(), c, q)
			require.True(t, isOutage(err), "%s: %v", name, err)
		})
	}
	late.Assert(t)
}

// A call past its deadline leaves nothing growing behind it. The test is not parallel because it counts goroutines.
func TestPromise1DeadlineLeavesNothingGrowing(t *testing.T) {
	for name, s := range map[string]scenario{
		"no session": {config: at(func(t *testing.T) string { return natstest.DeafPort(t).URL() })},
		"black hole": behindProxy(func(p *natstest.Proxy) { p.Pause() }),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, s.config(t))
			q := named(t, c, natslease.QueueConfig{})
			if s.fail != nil {
				_, err := q.Ensure(within(t, patience), natslease.ConflictKeep)
				require.NoError(t, err)
				s.fail(t, q)
			}
			burst := func() {
				var wg sync.WaitGroup
				for range 20 {
					for what, call := range calls {
						if what == "publish much" {
							continue // 8 MiB each
						}
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
							defer cancel()
							_ = call(ctx, c, q)
						})
					}
				}
				wg.Wait()
			}
			burst()
			inFlight, goroutines := c.Stats().InFlight, runtime.NumGoroutine()
			for range 4 {
				burst()
			}
			// A pull whose answer was lost is forgotten some time after the server would have ended it.
			require.Eventually(t, func() bool {
				_ = calls["reserve"](within(t, 150*time.Millisecond), c, q)
				return c.Stats().InFlight <= inFlight+20 && runtime.NumGoroutine() <= goroutines+20
			}, patience, 10*time.Millisecond, "requests or goroutines pile up")
		})
	}
}
