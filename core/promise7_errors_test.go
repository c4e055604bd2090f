package natslease_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// everything makes each call of the API at once and checks how it ends.
func everything(t *testing.T, c *natslease.Client, q *natslease.Queue, code natslease.Code, outcome natslease.Outcome, except ...string) {
	t.Helper()
	type call struct {
		name string
		do   func(ctx context.Context) error
	}
	lease := natslease.SettleItem{AckSubject: "$JS.ACK.jobs.jobs.1.1.1.1700000000000000000.0"}
	all := []call{
		{"ping", func(ctx context.Context) error { _, err := c.Ping(ctx); return err }},
		{"ensure", func(ctx context.Context) error { _, err := q.Ensure(ctx, natslease.ConflictKeep); return err }},
		{"info", func(ctx context.Context) error { _, err := q.Info(ctx); return err }},
		{"purge", func(ctx context.Context) error { _, err := q.Purge(ctx); return err }},
		{"reserve", func(ctx context.Context) error { _, err := q.Reserve(ctx, 1, time.Second); return err }},
		{"publish", func(ctx context.Context) error {
			report, err := q.Publish(ctx, []natslease.Message{{Data: []byte("x")}})
			if err != nil {
				return err
			}
			return report.Results[0].Err
		}},
		{"ack", func(ctx context.Context) error {
			results, err := q.Settle(ctx, natslease.Settlement{Kind: natslease.Ack}, []natslease.SettleItem{lease})
			if err != nil {
				return err
			}
			return results[0].Err
		}},
		{"delete", func(ctx context.Context) error { _, err := q.Delete(ctx); return err }},
	}
next:
	for _, one := range all {
		for _, name := range except {
			if one.name == name {
				continue next
			}
		}
		atOnce(t, func(ctx context.Context) {
			err := one.do(ctx)
			requireCode(t, err, code, outcome)
			var e *natslease.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, one.name, e.Operation)
		})
	}
}

func TestPromise7ErrorsOfCredentials(t *testing.T) {
	t.Parallel()
	seed, public := natstest.NewUserKey(t)
	otherSeed, _ := natstest.NewUserKey(t)
	_ = seed
	operator, _ := natstest.Operator(t)
	_, otherCreds := natstest.Operator(t)
	for name, c := range map[string]struct {
		option natstest.Option
		config natslease.Config
	}{
		"none":     {natstest.User("u", "p"), natslease.Config{}},
		"password": {natstest.User("u", "p"), natslease.Config{User: "u", Password: "q"}},
		"token":    {natstest.Token("t"), natslease.Config{Token: "u"}},
		"nkey":     {natstest.NKey(public), natslease.Config{NKeySeed: otherSeed}},
		"creds":    {operator, natslease.Config{Credentials: otherCreds}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config.Servers = []string{natstest.Start(t, c.option).URL()}
			client := newClient(t, c.config)
			everything(t, client, named(t, client, natslease.QueueConfig{}), natslease.CodeAuthentication, natslease.OutcomeNotSent)
		})
	}
}

func TestPromise7ErrorsOfConnecting(t *testing.T) {
	t.Parallel()
	ca, other := natstest.NewCA(t), natstest.NewCA(t)
	stopped := natstest.Start(t)
	stopped.Shutdown()
	for name, cfg := range map[string]natslease.Config{
		"refused":           {Servers: []string{stopped.URL()}},
		"unknown host":      {Servers: []string{"nats://host.invalid"}},
		"unknown authority": {Servers: []string{natstest.Start(t, natstest.TLS(ca, false)).URL()}, TLS: natslease.TLSConfig{CAFile: other.CertFile}},
		"no TLS there":      {Servers: []string{natstest.Start(t).URL()}, TLS: natslease.TLSConfig{CAFile: ca.CertFile}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, cfg)
			atOnce(t, func(ctx context.Context) {
				_, err := c.Ping(ctx)
				requireCode(t, err, natslease.CodeConnectFailed, natslease.OutcomeNotSent)
				var e *natslease.Error
				require.ErrorAs(t, err, &e)
				require.True(t, e.SafeToRetry())
				require.Contains(t, e.Explain(), "dial started")
			})
		})
	}
}

func TestPromise7ErrorsOfPermissions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		permissions server.Permissions
		except      []string
	}{
		"publishing nothing": {server.Permissions{Publish: &server.SubjectPermission{Deny: []string{">"}}}, []string{"ping"}},
		"no inbox": {
			server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"mine.>"}}}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Start(t, natstest.Users(&server.User{Username: "u", Password: "p", Permissions: &c.permissions}))
			client := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "u", Password: "p"})
			q := named(t, client, natslease.QueueConfig{})
			for range 2 { // every call, not only the first
				everything(t, client, q, natslease.CodePermissionDenied, natslease.OutcomeRejected, c.except...)
			}
		})
	}
}

// Who may neither reserve nor listen for publishes is told of the first, and of nothing else.
func TestPromise7ErrorsOfARefusedListener(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(
		&server.User{Username: "all", Password: "p"},
		&server.User{Username: "web", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}},
	))
	existing(t, newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "all", Password: "p"}), natslease.QueueConfig{})
	for range 300 {
		c := newClient(t, natslease.Config{Servers: []string{s.URL()}, User: "web", Password: "p"})
		q := named(t, c, natslease.QueueConfig{})
		for range 2 {
			_, err := q.Reserve(within(t, patience), 1, 0)
			requireCode(t, err, natslease.CodePermissionDenied, natslease.OutcomeRejected)
		}
		_, err := q.Info(within(t, patience))
		require.NoError(t, err)
		require.Equal(t, uint64(1), c.Stats().Generation)
		require.NoError(t, c.Close(within(t, patience)))
	}
}

func TestPromise7ErrorsOfAMissingQueue(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	missing := named(t, b.client, natslease.QueueConfig{Stream: "missing"})
	atOnce(t, func(ctx context.Context) {
		_, err := missing.Reserve(ctx, 1, 5*time.Second)
		requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	})
	atOnce(t, func(ctx context.Context) {
		report, err := missing.Publish(ctx, []natslease.Message{{}})
		require.NoError(t, err)
		requireCode(t, report.Results[0].Err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	})
	_, err := missing.Info(within(t, patience))
	requireCode(t, err, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
	existed, err := missing.Delete(within(t, patience))
	require.NoError(t, err)
	require.False(t, existed)

	// Gone while a call waits for it.
	ended := make(chan error, 1)
	go func() {
		_, err := b.queue.Reserve(context.Background(), 1, patience)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	require.NoError(t, b.js.DeleteConsumer(within(t, patience), "jobs", "jobs"))
	requireCode(t, <-ended, natslease.CodeQueueNotFound, natslease.OutcomeRejected)
}

func TestPromise7ErrorsWithoutJetStream(t *testing.T) {
	t.Parallel()
	c := connectTo(t, natstest.Start(t, natstest.WithoutJetStream()).URL())
	everything(t, c, named(t, c, natslease.QueueConfig{}), natslease.CodeQueueUnavailable, natslease.OutcomeRejected, "ping")
}

func TestPromise7ErrorsOfPublishing(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.MaxPayload(1000))
	c := connectTo(t, s.URL())
	q := existing(t, c, natslease.QueueConfig{MaxMessages: 2})
	report, err := q.Publish(within(t, patience), []natslease.Message{
		{Data: make([]byte, 2000)},
		{Data: []byte("one")},
		{Header: natslease.Header{"Nats-Expected-Last-Sequence": {"0"}}},
		{Data: []byte("two"), ID: "2"},
		{Header: natslease.Header{"a": {"b\r\nc"}}},
		{Data: []byte("three")},
		{Data: []byte("two"), ID: "2"},
	})
	require.NoError(t, err)
	want := []natslease.Code{
		natslease.CodePayloadTooLarge, "", natslease.CodeConfig, "", natslease.CodeConfig, natslease.CodeStorageFull, "",
	}
	for i, r := range report.Results {
		if want[i] == "" {
			require.Nil(t, r.Err, "%d", i)
			continue
		}
		requireCode(t, r.Err, want[i], natslease.OutcomeRejected)
	}
	require.Equal(t, uint64(1), c.Stats().Generation, "nothing of that ends the session")
}

func TestPromise7ErrorOfAMessageForAnotherStream(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	report, err := b.queue.Publish(within(t, patience), []natslease.Message{
		{Header: natslease.Header{"Nats-Expected-Stream": {"other"}}},
		{Header: natslease.Header{"Nats-Expected-Stream": {b.queue.Config().Stream}}},
	})
	require.NoError(t, err)
	requireCode(t, report.Results[0].Err, natslease.CodeServer, natslease.OutcomeRejected)
	require.Nil(t, report.Results[1].Err)
}

// Empty is no error, and no error is empty.
func TestPromise7EmptyIsNoError(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{MaxAckPending: 2})
	for _, wait := range []time.Duration{0, 200 * time.Millisecond} {
		started := time.Now()
		leases, err := b.queue.Reserve(within(t, patience), 10, wait)
		require.NoError(t, err)
		require.Empty(t, leases)
		require.GreaterOrEqual(t, time.Since(started), wait)
		require.Less(t, time.Since(started), wait+time.Second)
	}
	publish(t, b.queue, 3)
	leases := reserve(t, b.queue, 2)
	_, err := b.queue.Reserve(within(t, patience), 1, 300*time.Millisecond)
	requireCode(t, err, natslease.CodeSaturated, natslease.OutcomeRejected)
	var e *natslease.Error
	require.ErrorAs(t, err, &e)
	require.Positive(t, e.RetryAfter)
	require.NoError(t, leases[0].Ack(within(t, patience)))
	reserve(t, b.queue, 1)
	requireEmpty(t, b.queue) // everything is leased, nothing waits
}

func TestPromise7ErrorsOfBadInput(t *testing.T) {
	t.Parallel()
	p := natstest.DeafPort(t)
	c := connectTo(t, p.URL())
	q := named(t, c, natslease.QueueConfig{})
	refused := func(err error) {
		t.Helper()
		requireCode(t, err, natslease.CodeConfig, natslease.OutcomeRejected)
	}
	for _, n := range []int{-1, 0, natslease.MaxReserve + 1} {
		_, err := q.Reserve(within(t, patience), n, 0)
		refused(err)
	}
	_, err := q.Reserve(within(t, patience), 1, -1)
	refused(err)
	_, err = q.Reserve(within(t, time.Second), 1, time.Second)
	requireCode(t, err, natslease.CodeDeadline, natslease.OutcomeNotSent) // it may be the process that was slow
	_, err = q.Ensure(within(t, patience), "replace")
	refused(err)
	_, err = q.Settle(within(t, patience), natslease.Settlement{Kind: 99}, nil)
	refused(err)
	_, err = q.Settle(within(t, patience), natslease.Settlement{Kind: natslease.Nak, Delay: -1}, nil)
	refused(err)
	refused(q.Keep("$JS.ACK.jobs.jobs.1.1.1.1.0", 0))
	_, err = natslease.New(natslease.Config{Servers: []string{"http://x"}})
	require.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	_, err = c.Queue(natslease.QueueConfig{Stream: "a b"})
	require.Equal(t, natslease.CodeConfig, natslease.CodeOf(err))
	require.Zero(t, p.Connections(), "nothing of that opens a connection")
}

func TestPromise7ErrorsOfTheCallersContext(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.queue.Info(ctx)
	require.Equal(t, natslease.CodeCanceled, natslease.CodeOf(err))
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), -1)
	defer cancel()
	_, err = b.queue.Info(ctx)
	require.Equal(t, natslease.CodeDeadline, natslease.CodeOf(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var timeout interface{ Timeout() bool }
	require.True(t, errors.As(err, &timeout) && timeout.Timeout())
}

// A caller who cancels during a pause between two tries gets his own word back, not what the tries had failed with.
func TestPromise7ErrorsOfACancelledPause(t *testing.T) {
	t.Parallel()
	c := connectTo(t, natstest.Start(t, natstest.WithoutJetStream()).URL())
	q := named(t, c, natslease.QueueConfig{})
	_, err := c.Ping(within(t, patience))
	require.NoError(t, err)
	for name, call := range map[string]func(ctx context.Context) error{
		"info":    func(ctx context.Context) error { _, err := q.Info(ctx); return err },
		"reserve": func(ctx context.Context) error { _, err := q.Reserve(ctx, 1, time.Second); return err },
		"publish": func(ctx context.Context) error {
			report, err := q.Publish(ctx, []natslease.Message{{}})
			if err != nil {
				return err
			}
			return report.Results[0].Err
		},
		"ack": func(ctx context.Context) error {
			return ack(ctx, q, "$JS.ACK.jobs.jobs.1.1.1.1700000000000000000.0").Err
		},
	} {
		ctx, cancel := context.WithCancel(within(t, patience))
		time.AfterFunc(50*time.Millisecond, cancel)
		err := call(ctx)
		require.Equal(t, natslease.CodeCanceled, natslease.CodeOf(err), "%s: %v", name, err)
	}
}
