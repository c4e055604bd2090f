package natslease_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// Nothing but an ack of a task of that queue can be published through settling or keeping.
func TestPromise12OnlyLeasesCanBeSettled(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{Stream: "jobs"})
	existing(t, b.client, natslease.QueueConfig{Stream: "others"})
	publish(t, b.queue, 1)
	real := reserve(t, b.queue, 1)[0].AckSubject

	nc := natstest.Connect(t, b.server.URL())
	var mu sync.Mutex
	var seen []string
	_, err := nc.Subscribe(">", func(m *nats.Msg) {
		mu.Lock()
		seen = append(seen, m.Subject)
		mu.Unlock()
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())

	forgeries := []string{
		"", "$JS.API.STREAM.PURGE.jobs", "$JS.API.STREAM.DELETE.jobs", "jobs", "job.8.tasks", "$SYS.REQ.SERVER.PING",
		real + "\r\n", real + "\r\nPUB jobs 1\r\nx\r\n", strings.Replace(real, "jobs", "*", 1), strings.Replace(real, "jobs", ">", 1),
		strings.Replace(real, ".jobs.jobs.", ".others.others.", 1), strings.Replace(real, ".jobs.jobs.", ".jobs.others.", 1),
		real + ".x", real + " jobs", " " + real, real[1:], strings.ToLower(real), strings.Repeat("x", 1<<20), real + strings.Repeat(".x", 1<<19),
	}
	items := make([]natslease.SettleItem, 0, len(forgeries)+1)
	for _, s := range forgeries {
		items = append(items, natslease.SettleItem{AckSubject: s})
	}
	for _, kind := range []natslease.SettleKind{natslease.Nak, natslease.Release, natslease.Extend, natslease.Term, natslease.Ack} {
		results, err := b.queue.Settle(within(t, patience), natslease.Settlement{Kind: kind, Reason: "r"}, items)
		require.NoError(t, err)
		for i, r := range results {
			require.Equal(t, natslease.Invalid, r.Status, "%.100q", forgeries[i])
			requireCode(t, r.Err, natslease.CodeInvalidLease, natslease.OutcomeRejected)
			require.Less(t, len(r.Err.Error()), 400)
		}
	}
	for _, s := range forgeries {
		requireCode(t, b.queue.Keep(s, time.Minute), natslease.CodeInvalidLease, natslease.OutcomeRejected)
	}
	// One forgery among real leases stops nobody.
	results, err := b.queue.Settle(within(t, patience), natslease.Settlement{Kind: natslease.Ack}, append(items, natslease.SettleItem{AckSubject: real}))
	require.NoError(t, err)
	require.Equal(t, natslease.Settled, results[len(items)].Status)

	_, err = b.client.Ping(within(t, patience))
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	mu.Lock()
	defer mu.Unlock()
	for _, subject := range seen {
		if !strings.HasPrefix(subject, "$JS.EVENT.ADVISORY.") && !strings.HasPrefix(subject, "_INBOX.") {
			require.Contains(t, []string{real, "$JS.API.STREAM.INFO.jobs"}, subject) // whether its stream was made anew
		}
	}
	require.Equal(t, uint64(1), b.client.Stats().Generation)
}

// A term's reason cannot break out of its message.
func TestPromise12ReasonsAreOnlyText(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{})
	publish(t, b.queue, 1)
	l := reserve(t, b.queue, 1)[0]
	require.NoError(t, l.Term(within(t, patience), "x\r\nPUB jobs 1\r\ny\r\n\xff\x00"))
	info, err := b.queue.Info(within(t, patience))
	require.NoError(t, err)
	require.Zero(t, info.Messages)
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// No secret is in any text that comes out of the package.
func TestPromise12NoSecretIsShown(t *testing.T) {
	t.Parallel()
	_, public := natstest.NewUserKey(t)
	seed, _ := natstest.NewUserKey(t)
	_, creds := natstest.Operator(t)
	const password, token = "hunter2%40x", "hunter2token"
	stopped := natstest.Start(t)
	stopped.Shutdown()
	good := natstest.Start(t, natstest.User("u", "hunter2@x"))
	secrets := []string{"hunter2", seed, seed[2:], creds[60:120]}
	for name, c := range map[string]struct {
		url string
		cfg natslease.Config
	}{
		"good password in the URL":  {"nats://u:" + password + "@" + good.Addr(), natslease.Config{}},
		"wrong password in the URL": {"nats://u:hunter2wrong@" + good.Addr(), natslease.Config{}},
		"wrong token in the URL":    {"nats://" + token + "@" + natstest.Start(t, natstest.Token("x")).Addr(), natslease.Config{}},
		"wrong token":               {natstest.Start(t, natstest.Token("x")).URL(), natslease.Config{Token: token}},
		"wrong seed":                {natstest.Start(t, natstest.NKey(public)).URL(), natslease.Config{NKeySeed: seed}},
		"wrong creds":               {natstest.Start(t, natstest.User("u", "p")).URL(), natslease.Config{Credentials: creds}},
		"nobody there":              {"nats://u:" + password + "@" + stopped.Addr(), natslease.Config{}},
		"unknown host":              {"nats://u:" + password + "@host.invalid", natslease.Config{}},
		"silence":                   {"nats://u:" + password + "@" + natstest.InfoOnly(t).Addr(), natslease.Config{ConnectTimeout: 50 * time.Millisecond}},
		"TLS missing":               {"tls://u:" + password + "@" + good.Addr(), natslease.Config{}},
		"a bad URL":                 {"nats://u:" + password + "@host:port", natslease.Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log syncBuffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c.cfg.Servers, c.cfg.Logger, c.cfg.Name = []string{c.url}, logger, t.Name()
			var texts []string
			show := func(values ...any) {
				for _, v := range values {
					logger.Info("shown", "value", v)
					encoded, err := json.Marshal(v)
					if err == nil {
						texts = append(texts, string(encoded))
					}
					for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
						texts = append(texts, fmt.Sprintf(verb, v))
					}
					if err, ok := v.(error); ok {
						texts = append(texts, err.Error())
					}
					if e, ok := v.(*natslease.Error); ok && e != nil {
						texts = append(texts, e.Explain(), fmt.Sprint(e.Cause))
					}
				}
			}
			client, err := natslease.New(c.cfg)
			show(c.cfg, err)
			if err == nil {
				_, err = client.Ping(within(t, patience))
				q := named(t, client, natslease.QueueConfig{})
				_, infoErr := q.Info(within(t, patience))
				type holder struct {
					client *natslease.Client
					queue  *natslease.Queue
				}
				show(err, infoErr, client, q, holder{client, q}, &holder{client, q}, client.Stats(), ack(within(t, patience), q, "forged"))
				require.NoError(t, client.Close(within(t, patience)))
			}
			texts = append(texts, log.String())
			for _, text := range texts {
				for _, secret := range secrets {
					require.NotContains(t, text, secret)
				}
			}
		})
	}
}
