package natslease_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/RolnickLab/natslease/core"
)

// A task that is given back goes to a call of the same process that waits for one. When that call is cancelled before it
// has all that it wants, the task goes to the next, though nobody knows any more when it had arrived at first.
func TestPromise5NothingLostByCancellingWhoWasHandedIt(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Minute})
	publish(t, b.queue, 1)
	lease := reserve(t, b.queue, 1)[0]
	ctx, cancel := context.WithCancel(within(t, patience))
	ended := make(chan error)
	go func() {
		_, err := b.queue.Reserve(ctx, 2, 10*time.Second)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	given := natslease.SettleItem{
		AckSubject: lease.AckSubject, Expires: lease.Expires,
		Lease: &natslease.Lease{
			AckSubject: lease.AckSubject, Data: lease.Data, Expires: lease.Expires, ID: lease.ID, Subject: lease.Subject,
		},
	}
	results, err := b.queue.Settle(within(t, patience), natslease.Settlement{Kind: natslease.Release}, []natslease.SettleItem{given})
	require.NoError(t, err)
	require.Equal(t, natslease.Settled, results[0].Status)
	cancel()
	requireCode(t, <-ended, natslease.CodeCanceled, natslease.OutcomeUnknown)
	again := reserve(t, b.queue, 1)[0]
	require.Equal(t, lease.AckSubject, again.AckSubject)
}

// Before a process ends, what came for calls that had given up is given back at once.
func TestPromise5NothingLostByTheEndOfAProcess(t *testing.T) {
	t.Parallel()
	b := setup(t, natslease.QueueConfig{AckWait: time.Minute})
	require.Zero(t, b.client.GiveBackLate(t.Context()))
	ctx, cancel := context.WithCancel(within(t, patience))
	ended := make(chan error)
	go func() {
		_, err := b.queue.Reserve(ctx, 5, 10*time.Second)
		ended <- err
	}()
	awaitPulls(t, b.queue, 1)
	cancel()
	requireCode(t, <-ended, natslease.CodeCanceled, natslease.OutcomeUnknown)
	publish(t, b.queue, 1)
	b.client.AwaitLate(within(t, patience))
	require.Eventually(t, func() bool { return b.client.GiveBackLate(within(t, patience)) == 1 }, patience, time.Millisecond)
	other := named(t, newClient(t, natslease.Config{Servers: []string{b.server.URL()}, Name: "another process"}), natslease.QueueConfig{})
	require.Len(t, reserve(t, other, 1), 1)
}
