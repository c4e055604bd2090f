package fleet_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natslease "github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/fleet"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

func TestANewerWorkerFencesTheOlder(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	older, newer := open(t, url, fleet.Config{}), open(t, url, fleet.Config{})
	older.ensure(t)
	first := older.join(t, gpu("0"))
	older.publish(t, 2)
	lease := older.reserve(t, 1)[0]

	// The older one waits for tasks while the newer one comes.
	waited := make(chan error, 1)
	older.reserve(t, 1)
	go func() {
		leases, err := older.queue.Reserve(within(t, patience), 1, 15*time.Second)
		assert.Empty(t, leases)
		waited <- err
	}()
	require.Eventually(t, func() bool {
		info, err := newer.queue.Info(within(t, patience))
		return err == nil && info.NumWaiting == 1
	}, patience, time.Millisecond)
	second := newer.join(t, gpu("0"))
	assert.Greater(t, second.Epoch(), first.Epoch())
	started := time.Now()
	requireSuperseded(t, <-waited)
	assert.Less(t, time.Since(started), 2*time.Second)

	e := requireSuperseded(t, first.Superseded())
	assert.Contains(t, e.Message, gpu("0").String())
	_, err := older.queue.Reserve(within(t, patience), 1, 0)
	requireSuperseded(t, err)
	_, err = older.client.ReserveAny(within(t, patience), []*natslease.Queue{older.queue}, 1, 0)
	requireSuperseded(t, err)

	require.NoError(t, lease.Release(within(t, patience)), "what it has it can give back")
	newer.reserve(t, 1)
	assert.NoError(t, second.Superseded())
}

// The pull of a worker that is fenced while it waits is still with the server: what it brings belongs to others.
func TestATaskThatComesForAFencedWorkerGoesToAnother(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	older, newer := open(t, url, fleet.Config{}), open(t, url, fleet.Config{})
	older.ensure(t)
	older.join(t, gpu("0"))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			leases, err := older.queue.Reserve(within(t, patience), 1, 10*time.Second)
			assert.Empty(t, leases)
			if natslease.CodeOf(err) == natslease.CodeSuperseded {
				return
			}
		}
	}()
	require.Eventually(t, func() bool {
		info, err := newer.queue.Info(within(t, patience))
		return err == nil && info.NumWaiting == 1
	}, patience, time.Millisecond)
	newer.join(t, gpu("0"))
	newer.publish(t, 1) // at once: the older one's pull may be there
	leases := newer.reserve(t, 1)
	require.NoError(t, leases[0].Ack(within(t, patience)))
	<-over
}

func TestOtherPlacesAreNotFenced(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	places := []fleet.Identity{
		gpu("0"), gpu("1"),
		{Service: "Panama moths (v2)", Host: "node", Slot: "example.0"},
		{Service: "Panama moths =28v2", Host: "node.example", Slot: "0"},
	}
	var members []*fleet.Member
	for _, place := range places {
		members = append(members, open(t, url, fleet.Config{}).join(t, place))
	}
	workers, err := open(t, url, fleet.Config{}).Workers(within(t, patience))
	require.NoError(t, err)
	require.Len(t, workers, len(places))
	for i, m := range members {
		assert.NoError(t, m.Superseded())
		assert.NoError(t, m.Admit(within(t, patience)))
		assert.Equal(t, places[i], m.Identity())
	}
}

func TestThreeFencingsInAMinuteStopTheFencing(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	var members []*fleet.Member
	for range 4 {
		members = append(members, open(t, url, fleet.Config{}).join(t, gpu("0")))
	}
	late := open(t, url, fleet.Config{})
	_, err := late.Join(within(t, patience), gpu("0"), fleet.Details{Version: "newest"})
	e := requireSuperseded(t, err)
	assert.Greater(t, e.RetryAfter, 30*time.Second)
	assert.LessOrEqual(t, e.RetryAfter, time.Minute)
	assert.Contains(t, e.Message, "version 1")
	assert.Contains(t, e.Message, "version newest")
	assert.NoError(t, members[3].Admit(within(t, patience)), "the holder goes on")
	for _, m := range members[:3] {
		requireSuperseded(t, m.Admit(within(t, patience)))
	}

	require.NoError(t, members[3].Leave(within(t, patience)))
	late.join(t, gpu("0")) // the place is free: nobody is fenced
}

// A worker that crashes and is started again fences nobody, however often.
func TestACrashLoopIsNoFencing(t *testing.T) {
	t.Parallel()
	s := open(t, natstest.Start(t).URL(), fleet.Config{})
	for i := range 6 {
		child := exec.Command("sleep", "60")
		require.NoError(t, child.Start())
		r, err := s.RegisterProcess(within(t, patience), gpu("0"), fleet.Details{}, child.Process.Pid)
		require.NoError(t, err, "start %d", i)
		assert.Nil(t, r.Fenced)
		require.NoError(t, child.Process.Kill())
		_ = child.Wait()
	}
}

func TestWorkersThatAnotherProcessSpeaksFor(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	web := []site{open(t, url, fleet.Config{}), open(t, url, fleet.Config{})}
	older, err := web[0].Register(within(t, patience), gpu("0"), fleet.Details{Version: "1", Address: "10.0.0.7"})
	require.NoError(t, err)
	assert.Nil(t, older.Fenced)
	for range 3 {
		for _, w := range web {
			require.NoError(t, w.Renew(within(t, patience), gpu("0"), older.Epoch, nil))
		}
	}
	newer, err := web[1].Register(within(t, patience), gpu("0"), fleet.Details{Version: "2"})
	require.NoError(t, err)
	require.NotNil(t, newer.Fenced)
	assert.Equal(t, older.Epoch, newer.Fenced.Epoch)
	assert.Equal(t, "10.0.0.7", newer.Fenced.Address)
	for _, w := range web {
		requireSuperseded(t, w.Renew(within(t, patience), gpu("0"), older.Epoch, nil))
		require.NoError(t, w.Renew(within(t, patience), gpu("0"), newer.Epoch, nil))
	}
	require.NoError(t, web[0].Leave(within(t, patience), gpu("0"), older.Epoch), "of no consequence")
	workers, err := web[0].Workers(within(t, patience))
	require.NoError(t, err)
	require.Len(t, workers, 1)
	assert.Equal(t, fleet.Online, workers[0].Status)
	assert.Equal(t, "2", workers[0].Version)

	require.NoError(t, web[0].Leave(within(t, patience), gpu("0"), newer.Epoch))
	workers, err = web[0].Workers(within(t, patience))
	require.NoError(t, err)
	assert.Equal(t, fleet.Offline, workers[0].Status)
	assert.True(t, workers[0].Left)
}

func TestAnOperatorStopsWorkers(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t).URL()
	s, operator := open(t, url, fleet.Config{}), open(t, url, fleet.Config{})
	m := s.join(t, gpu("0"))
	old := fleet.Identity{Service: "token 1a2b", Host: "10.0.0.7", Slot: "0"}
	require.NoError(t, operator.Seen(within(t, patience), old, fleet.Details{}))
	for _, id := range []fleet.Identity{gpu("0"), old} {
		found, err := operator.Stop(within(t, patience), id, "too slow")
		require.NoError(t, err)
		assert.True(t, found)
	}
	e := requireSuperseded(t, m.Admit(within(t, patience)))
	assert.Contains(t, e.Message, "too slow")
	requireSuperseded(t, operator.Seen(within(t, patience), old, fleet.Details{}))
	found, err := operator.Allow(within(t, patience), old)
	require.NoError(t, err)
	assert.True(t, found)
	require.NoError(t, operator.Seen(within(t, patience), old, fleet.Details{}))
	found, err = operator.Stop(within(t, patience), gpu("7"), "")
	require.NoError(t, err)
	assert.False(t, found)

	open(t, url, fleet.Config{}).join(t, gpu("0")) // started anew
}

// What was written while nobody listened is found before the next task is taken.
func TestAWorkerThatLostItsConnectionLooksAtItsRecordFirst(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	proxy := natstest.NewProxy(t, s.Addr())
	older := open(t, proxy.URL(), fleet.Config{Heartbeat: time.Minute, OnlineFor: 2 * time.Minute})
	newer := open(t, s.URL(), fleet.Config{})
	newer.ensure(t)
	newer.publish(t, 2)
	older.join(t, gpu("0"))
	older.reserve(t, 1)
	proxy.Cut()
	newer.join(t, gpu("0"))
	require.Eventually(t, func() bool {
		leases, err := older.queue.Reserve(within(t, patience), 1, 0)
		assert.Empty(t, leases)
		return natslease.CodeOf(err) == natslease.CodeSuperseded
	}, patience, time.Millisecond)
	newer.reserve(t, 1)
}

func TestAWorkerThatMayNotListen(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Users(&server.User{
		Username: "u", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "job.>"}}},
	}))
	options := natslease.Config{Servers: []string{s.URL()}, User: "u", Password: "p"}
	older, newer := openWith(t, options, fleet.Config{}), openWith(t, options, fleet.Config{})
	m := older.join(t, gpu("0"))
	require.NoError(t, m.Admit(within(t, patience)))
	newer.join(t, gpu("0"))
	require.Eventually(t, func() bool { return m.Admit(within(t, patience)) != nil }, patience, 10*time.Millisecond)
	requireSuperseded(t, m.Superseded())
}

func TestAWorkerIsRenewedByItself(t *testing.T) {
	t.Parallel()
	cfg := fleet.Config{Heartbeat: 20 * time.Millisecond, OnlineFor: 300 * time.Millisecond, StaleFor: 600 * time.Millisecond}
	url := natstest.Start(t).URL()
	s, other := open(t, url, cfg), open(t, url, cfg)
	m := s.join(t, gpu("0"))
	look := func() fleet.Worker {
		workers, err := other.Workers(within(t, patience))
		require.NoError(t, err)
		require.Len(t, workers, 1)
		return workers[0]
	}
	first := look()
	require.Eventually(t, func() bool { return look().LastSeen.Sub(first.LastSeen) > cfg.OnlineFor }, patience, time.Millisecond)
	assert.Equal(t, fleet.Online, look().Status)
	assert.Equal(t, first.Epoch, look().Epoch, "an epoch is of the registration, not of the renewal")
	assert.True(t, first.Joined.Equal(look().Joined))

	require.NoError(t, s.client.Close(within(t, patience))) // as if its process had ended
	require.Eventually(t, func() bool { return look().Status == fleet.Offline }, patience, time.Millisecond)
	assert.NoError(t, m.Superseded())
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	s := open(t, "nats://127.0.0.1:1", fleet.Config{})
	for _, id := range []fleet.Identity{{}, {Service: "a", Host: "b"}, {Service: "a\n", Host: "b", Slot: "c"}, {Service: "\xff", Host: "b", Slot: "c"}} {
		_, err := s.Register(context.Background(), id, fleet.Details{})
		assert.Equal(t, natslease.CodeConfig, natslease.CodeOf(err), "%q", id)
	}
	assert.Contains(t, fleet.DefaultHost(), "~")
	for _, cfg := range []fleet.Config{{Bucket: "a.b"}, {Events: "a b"}, {Heartbeat: time.Hour}, {StaleFor: time.Second}, {Keep: time.Minute}} {
		_, err := fleet.New(s.client, cfg)
		assert.Equal(t, natslease.CodeConfig, natslease.CodeOf(err), "%+v", cfg)
	}
}
