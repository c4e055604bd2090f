package natslease_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// longestCool is the longest cool-down that the promise allows.
const longestCool = 5 * time.Second

// gated is a client of a server behind a dialer that does as it is told.
func gated(t *testing.T) (*natslease.Client, *natstest.GatedDialer) {
	t.Helper()
	d := natstest.NewGatedDialer()
	return newClient(t, natslease.Config{Servers: []string{natstest.Start(t).URL()}, Dialer: d}), d
}

func ping(t testing.TB, c *natslease.Client) *natslease.Error {
	t.Helper()
	_, err := c.Ping(within(t, patience))
	if err == nil {
		return nil
	}
	return err.(*natslease.Error)
}

// herd has n goroutines ping at once and returns how they ended.
func herd(t *testing.T, c *natslease.Client, n int) []*natslease.Error {
	t.Helper()
	ends := make([]*natslease.Error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { ends[i] = ping(t, c) })
	}
	wg.Wait()
	return ends
}

// open makes the dialer refuse until the breaker is open.
func open(t *testing.T, c *natslease.Client, d *natstest.GatedDialer) {
	t.Helper()
	d.Refuse()
	for range 3 {
		requireCode(t, ping(t, c), natslease.CodeConnectFailed, natslease.OutcomeNotSent)
	}
	require.Equal(t, "open", c.Stats().Breaker.State)
}

// cool waits for the end of the cool-down.
func cool(t *testing.T, c *natslease.Client) {
	t.Helper()
	wait := c.Stats().Breaker.RetryAfter
	require.Positive(t, wait)
	require.LessOrEqual(t, wait, longestCool)
	time.Sleep(wait + time.Millisecond)
}

// The breaker counts sessions, never calls: a hundred calls on one cut connection are one failure, and so are a hundred
// that wait for one dial.
func TestPromise10OutageOfASessionIsOneFailure(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.Start(t).Addr())
	d := natstest.NewGatedDialer()
	c := newClient(t, natslease.Config{Servers: []string{p.URL()}, Dialer: d})
	ends := inFlight(t, c, existing(t, c, natslease.QueueConfig{}), 100)
	p.Cut()
	for range 100 {
		requireCode(t, <-ends, natslease.CodeConnectionLost, natslease.OutcomeUnknown)
	}
	require.Equal(t, natslease.BreakerStats{State: "closed", ConsecutiveFailures: 1}, c.Stats().Breaker)

	d.Hold()
	<-d.Entered() // of the first dial
	time.AfterFunc(100*time.Millisecond, d.Refuse)
	for _, err := range herd(t, c, 100) {
		requireCode(t, err, natslease.CodeConnectFailed, natslease.OutcomeNotSent)
	}
	require.Equal(t, 2, d.Dials())
	require.Equal(t, natslease.BreakerStats{State: "closed", ConsecutiveFailures: 2}, c.Stats().Breaker)

	d.Connect()
	require.Nil(t, ping(t, c))
	require.Equal(t, natslease.BreakerStats{State: "closed"}, c.Stats().Breaker)
}

// A session that dies before it has answered anything is a failure, not a success that a dial has brought.
func TestPromise10OutageBehindAPortThatConnects(t *testing.T) {
	t.Parallel()
	p := natstest.NewProxy(t, natstest.Start(t).Addr())
	c := newClient(t, natslease.Config{Servers: []string{p.URL()}})
	for range 3 {
		cut := p.CutBefore(natstest.FromServer, "PONG")
		requireCode(t, ping(t, c), natslease.CodeConnectFailed, natslease.OutcomeNotSent)
		<-cut
	}
	requireCode(t, ping(t, c), natslease.CodeCircuitOpen, natslease.OutcomeNotSent)
}

// After three failures in a row calls fail at once, are told when to come again, and dial nobody.
func TestPromise10OutageOpensTheBreaker(t *testing.T) {
	t.Parallel()
	c, d := gated(t)
	q := named(t, c, natslease.QueueConfig{})
	open(t, c, d)
	require.Equal(t, uint64(1), c.Stats().Breaker.Opened)
	require.Equal(t, uint32(3), c.Stats().Breaker.ConsecutiveFailures)
	opened := time.Now()
	var took, noise []time.Duration
	retries := make(map[time.Duration]bool)
	for time.Since(opened) < 300*time.Millisecond {
		started := time.Now()
		_, err := q.Reserve(within(t, patience), 1, 0)
		took = append(took, time.Since(started))
		for started = time.Now(); time.Since(started) < 20*time.Microsecond; { // longer than a call
		}
		noise = append(noise, time.Since(started)) // what the machine's other work costs
		requireCode(t, err, natslease.CodeCircuitOpen, natslease.OutcomeNotSent)
		after := err.(*natslease.Error).RetryAfter
		require.Positive(t, after)
		require.Less(t, after, longestCool)
		retries[after] = true
	}
	p99 := func(d []time.Duration) time.Duration {
		slices.Sort(d)
		return d[len(d)*99/100]
	}
	require.Less(t, p99(took)-p99(noise), time.Millisecond, "of %d calls", len(took))
	require.Greater(t, len(retries), 100, "those who are told to come again must not come in step")
	require.Equal(t, 3, d.Dials())
	everything(t, c, q, natslease.CodeCircuitOpen, natslease.OutcomeNotSent)
}

// When it has cooled down one call probes; the others are refused meanwhile, and its failure opens it again.
func TestPromise10OutageIsProbedOnce(t *testing.T) {
	t.Parallel()
	c, d := gated(t)
	open(t, c, d)
	first := c.Stats().Breaker.RetryAfter
	cool(t, c)
	d.Hold()
	for len(d.Entered()) > 0 {
		<-d.Entered()
	}
	probe := make(chan *natslease.Error, 1)
	go func() { probe <- ping(t, c) }()
	<-d.Entered()
	require.Equal(t, "half-open", c.Stats().Breaker.State)
	for _, err := range herd(t, c, 50) {
		requireCode(t, err, natslease.CodeCircuitOpen, natslease.OutcomeNotSent)
		require.Positive(t, err.RetryAfter)
	}
	require.Equal(t, 4, d.Dials())
	d.Refuse()
	requireCode(t, <-probe, natslease.CodeConnectFailed, natslease.OutcomeNotSent)
	require.Equal(t, "open", c.Stats().Breaker.State)
	require.Equal(t, uint64(2), c.Stats().Breaker.Opened)
	require.Greater(t, c.Stats().Breaker.RetryAfter, first, "it waits longer")

	cool(t, c)
	d.Connect()
	require.Nil(t, ping(t, c))
	require.Equal(t, "closed", c.Stats().Breaker.State)
	require.Equal(t, 5, d.Dials())
}

// A probe whose caller goes away is finished all the same.
func TestPromise10OutageIsProbedWithoutItsCaller(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]bool{"and succeeds": true, "and fails": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, d := gated(t)
			open(t, c, d)
			cool(t, c)
			d.Hold()
			_, err := c.Ping(within(t, 20*time.Millisecond))
			requireCode(t, err, natslease.CodeDeadline, natslease.OutcomeNotSent)
			if ends {
				d.Connect()
				require.Eventually(t, func() bool { return c.Stats().Connected }, patience, time.Millisecond)
				require.Nil(t, ping(t, c))
				require.Equal(t, "closed", c.Stats().Breaker.State)
				return
			}
			d.Refuse()
			require.Eventually(t, func() bool { return c.Stats().Breaker.State == "open" }, patience, time.Millisecond)
			cool(t, c)
			d.Connect()
			require.Nil(t, ping(t, c))
		})
	}
}

// The first success comes soon after the server, to those who come again when they were told to.
func TestPromise10OutageEnds(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	c := connectTo(t, s.URL())
	require.Nil(t, ping(t, c))
	s.Shutdown()
	require.Eventually(t, func() bool { return c.Stats().Breaker.State == "open" || ping(t, c) == nil }, patience, time.Millisecond)
	s.Restart()
	returned := time.Now()
	coolDown := c.Stats().Breaker.RetryAfter
	for {
		err := ping(t, c)
		if err == nil {
			break
		}
		require.Equal(t, natslease.CodeCircuitOpen, err.Code)
		time.Sleep(err.RetryAfter)
	}
	require.Less(t, time.Since(returned), coolDown+200*time.Millisecond)
	require.Equal(t, "closed", c.Stats().Breaker.State)
}

// Each change is told in one line, and its handler may ask for Stats.
func TestPromise10OutageIsLogged(t *testing.T) {
	t.Parallel()
	d := natstest.NewGatedDialer()
	log := &lines{}
	c := newClient(t, natslease.Config{Servers: []string{natstest.Start(t).URL()}, Dialer: d, Logger: slog.New(log)})
	log.client = c
	open(t, c, d)
	cool(t, c)
	d.Connect()
	require.Nil(t, ping(t, c))
	require.Eventually(t, func() bool { return len(log.all()) == 3 }, patience, time.Millisecond)
	require.Equal(t, []string{
		"WARN circuit breaker opened", "INFO circuit breaker half-open: one probe is made", "INFO circuit breaker closed",
	}, log.all())
}

// lines is a log handler that keeps what is said of the breaker.
type lines struct {
	client *natslease.Client

	mu   sync.Mutex
	kept []string
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept)
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	_ = l.client.Stats()
	if strings.HasPrefix(r.Message, "circuit breaker") {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.kept = append(l.kept, r.Level.String()+" "+r.Message)
	}
	return nil
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

// Whoever refuses is there: credentials, permissions and wrong use never open it.
func TestPromise10OutageIsNoRefusal(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(
		&server.User{Username: "good", Password: "p"},
		&server.User{Username: "mute", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{">"}},
		}},
		&server.User{Username: "deaf", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"mine.>"}},
		}},
	))
	for user, password := range map[string]string{"good": "q", "mute": "p", "deaf": "p"} {
		c := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: user, Password: password})
		q := named(t, c, natslease.QueueConfig{})
		for range 10 {
			_, err := q.Info(within(t, patience))
			if user == "good" {
				requireCode(t, err, natslease.CodeAuthentication, natslease.OutcomeNotSent)
			} else {
				requireCode(t, err, natslease.CodePermissionDenied, natslease.OutcomeRejected)
			}
		}
		require.Equal(t, natslease.BreakerStats{State: "closed"}, c.Stats().Breaker, user)
	}
	c := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "good", Password: "p"})
	q := named(t, c, natslease.QueueConfig{})
	for range 10 {
		_, err := q.Info(within(t, patience))
		requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
		_, err = q.Reserve(within(t, patience), 0, 0)
		requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = q.Info(ctx)
		requireCode(t, err, natslease.CodeCanceled, natslease.OutcomeNotSent)
	}
	require.Equal(t, natslease.BreakerStats{State: "closed"}, c.Stats().Breaker)
}
