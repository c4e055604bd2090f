//go:build linux

package natstest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Cluster is a few nats-servers of their own processes that replicate each other's streams.
type Cluster []*Process

// StartProcessCluster starts n servers of one version that form a cluster, and waits until JetStream has a leader. They
// end with the test.
func StartProcessCluster(t testing.TB, version Version, n int) Cluster {
	t.Helper()
	ports, routes := clusterPorts(t, n)
	c := make(Cluster, n)
	for i := range c {
		name := fmt.Sprint("node", i)
		c[i] = StartProcess(t, version,
			"server_name: "+name,
			fmt.Sprintf(`cluster { name: natstest, listen: "127.0.0.1:%d", routes: [ %s ] }`, ports[i], strings.Join(routes, ", ")))
		c[i].Name = name
	}
	c.AwaitLeader(t)
	return c
}

// AwaitLeader waits until all servers follow one leader of JetStream. A server of 2.10 that has joined in the wrong moment
// is never told of one: it is started again.
func (c Cluster) AwaitLeader(t testing.TB) {
	t.Helper()
	restarted, restarts := time.Now(), 0
	for deadline := time.Now().Add(3 * startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var lost []*Process
		for _, p := range c {
			var jetStream struct {
				Meta struct {
					Leader   string `json:"leader"`
					Size     int    `json:"cluster_size"`
					Replicas []struct {
						Current bool `json:"current"`
						Offline bool `json:"offline"`
					} `json:"replicas"` // the leader tells of them
				} `json:"meta_cluster"`
			}
			p.monitor("jsz", &jetStream)
			meta, offline, reached := jetStream.Meta, false, 1
			for _, r := range meta.Replicas {
				offline = offline || r.Offline
				if r.Current {
					reached++
				}
			}
			// Before the leader reaches a server it places no replicas there.
			if meta.Leader == "" || meta.Size < len(c) || offline || meta.Leader == p.Name && reached < len(c) {
				lost = append(lost, p)
			}
		}
		if len(lost) == 0 {
			return
		}
		if time.Since(restarted) > startTimeout/2 {
			lost[restarts%len(lost)].Restart() // who is at fault cannot be seen
			restarted, restarts = time.Now(), restarts+1
		}
	}
	for _, p := range c {
		t.Log(p.Log())
	}
	require.FailNow(t, "the cluster has no leader")
}

// AwaitPending waits until every server knows of n tasks that were given out and not acknowledged, whatever the queue. A
// consumer's leader gives a task out before the others have heard of it.
func (c Cluster) AwaitPending(t testing.TB, n int) {
	t.Helper()
	for _, p := range c {
		require.Eventually(t, func() bool { return p.pending() == n }, startTimeout, 10*time.Millisecond, "%s does not know of %d tasks that were given out", p.Name, n)
	}
}

// pending is how many tasks its consumers have given out and not seen acknowledged.
func (p *Process) pending() int {
	p.t.Helper()
	var jsz struct {
		Accounts []struct {
			Streams []struct {
				Consumers []struct {
					Pending int `json:"num_ack_pending"`
				} `json:"consumer_detail"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	p.monitor("jsz?consumers=true", &jsz)
	pending := 0
	for _, account := range jsz.Accounts {
		for _, stream := range account.Streams {
			for _, consumer := range stream.Consumers {
				pending += consumer.Pending
			}
		}
	}
	return pending
}

// Named is the server of that name.
func (c Cluster) Named(name string) *Process {
	return c[slices.IndexFunc(c, func(p *Process) bool { return p.Name == name })]
}

// Other is a server that is none of those.
func (c Cluster) Other(than ...string) *Process {
	return c[slices.IndexFunc(c, func(p *Process) bool { return !slices.Contains(than, p.Name) })]
}
