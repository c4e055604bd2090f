//go:build linux

package natslease_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/RolnickLab/natslease/core"
	"github.com/RolnickLab/natslease/core/internal/natstest"
)

// A process that is stopped while its pull is out reads a task only when it goes on. The lease has run out since: its
// holder must neither take the task from who has it now, nor lengthen that one's lease, nor end it.
func TestPromise6AckOfALeaseThatRanOutUnread(t *testing.T) {
	t.Parallel()
	for _, ackWait := range []time.Duration{time.Second, 4 * time.Second} { // shorter and longer than the pull
		t.Run(ackWait.String(), func(t *testing.T) {
			t.Parallel()
			stoppedTaker(t, ackWait)
		})
	}
}

func stoppedTaker(t *testing.T, ackWait time.Duration) {
	t.Helper()
	onBoth(t, natslease.QueueConfig{AckWait: ackWait}, func(t *testing.T, p *natstest.Process, b bundle) {
		taker := exec.Command(os.Args[0], "-test.run=^TestStoppedTaker$", "-test.count=1", "-test.v")
		taker.Env = append(os.Environ(), "NATSLEASE_STOPPED_TAKER="+p.URL())
		output, err := taker.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, taker.Start())
		t.Cleanup(func() {
			_ = taker.Process.Kill()
			_ = taker.Wait()
		})
		awaitPulls(t, b.queue, 1)
		require.NoError(t, taker.Process.Signal(syscall.SIGSTOP))
		var info unix.Siginfo
		require.NoError(t, unix.Waitid(unix.P_PID, taker.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil))
		publish(t, b.queue, 1)
		leases := reserve(t, b.queue, 1)
		require.Equal(t, 2, leases[0].Attempt, "the first delivery waits in the socket")
		require.Greater(t, time.Until(leases[0].Expires), ackWait*3/4, "it begins now, for this process never stood still")
		require.NoError(t, leases[0].Keep(patience))
		require.NoError(t, taker.Process.Signal(syscall.SIGCONT))
		var said []string
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if _, ending, ok := strings.Cut(lines.Text(), "settled: "); ok {
				said = append(said, ending)
			}
		}
		require.Equal(t, []string{"nak expired", "release expired", "extend expired", "term expired"}, said)
		require.NoError(t, taker.Wait())
		state, err := b.queue.Info(within(t, patience))
		require.NoError(t, err)
		require.Equal(t, uint64(1), state.NumAckPending)
		leases2, err := b.queue.Reserve(within(t, patience), 1, 100*time.Millisecond)
		require.NoError(t, err)
		require.Empty(t, leases2)
		require.NoError(t, leases[0].Ack(within(t, patience)))
	})
}

// TestStoppedTaker is the other process of the test above.
func TestStoppedTaker(t *testing.T) {
	url := os.Getenv("NATSLEASE_STOPPED_TAKER")
	if url == "" {
		return
	}
	q := named(t, connectTo(t, url), natslease.QueueConfig{})
	leases, err := q.Reserve(within(t, patience), 1, patience-time.Second)
	require.NoError(t, err, "also if its session is believed to be dead")
	require.Len(t, leases, 1)
	require.Equal(t, 1, leases[0].Attempt)
	for _, kind := range []natslease.SettleKind{natslease.Nak, natslease.Release, natslease.Extend, natslease.Term} {
		results, err := q.Settle(context.Background(), natslease.Settlement{Kind: kind}, []natslease.SettleItem{
			{AckSubject: leases[0].AckSubject, Expires: leases[0].Expires, Lease: leases[0]},
		})
		require.NoError(t, err)
		fmt.Println("settled:", kind, results[0].Status)
	}
}
