//go:build linux

package natstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestProcess(t *testing.T) {
	t.Parallel()
	for _, version := range []Version{Newest, Oldest} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			if version == Oldest && !isFile(filepath.Join(version.module(moduleRoot(t)), "go.mod")) && os.Getenv(version.variable()) == "" {
				t.Skip("no tools module for the oldest server")
			}
			p := StartProcess(t, version)
			require.Equal(t, uint64(1), stored(t, JetStream(t, p.URL())))
			require.Positive(t, p.TotalConnections())
			url := p.URL()
			p.Restart()
			require.Equal(t, url, p.URL())
			require.Equal(t, uint64(2), stored(t, JetStream(t, p.URL())))
			p.Stop()
			require.Contains(t, p.Log(), "Server Exiting")
			p.Start()
			require.Equal(t, uint64(3), stored(t, JetStream(t, p.URL())))
		})
	}
}

func TestProcessFreeze(t *testing.T) {
	t.Parallel()
	p := StartProcess(t, Newest)
	nc := Connect(t, p.URL())
	for range 3 {
		p.Freeze()
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid()))
		require.NoError(t, err)
		require.NotEmpty(t, tasks)
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			require.NoError(t, err)
			_, state, _ := strings.Cut(string(stat), ") ")
			require.Equal(t, "T", state[:1], task)
		}
		require.ErrorIs(t, nc.FlushTimeout(50*time.Millisecond), nats.ErrTimeout)
		p.Thaw()
		require.NoError(t, nc.FlushTimeout(startTimeout))
	}
	require.Equal(t, 1, p.Connections())
	p.Freeze()
	p.Kill() // also a frozen one
}

func TestProcessLameDuck(t *testing.T) {
	t.Parallel()
	p := StartProcess(t, Newest)
	told := make(chan struct{})
	Connect(t, p.URL(), nats.LameDuckModeHandler(func(*nats.Conn) { close(told) }), nats.MaxReconnects(0))
	p.LameDuck()
	<-told
}

func TestServerBinaryFromTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	t.Setenv(Newest.variable(), path)
	require.Equal(t, path, serverBinary(t, Newest))
}
