package natstest

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// StartCluster starts n servers that form a cluster, and waits until JetStream has a leader. They end with the test.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	ports := make([]int, n)
	routes := ""
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ports[i] = l.Addr().(*net.TCPAddr).Port
		routes += fmt.Sprintf("nats://127.0.0.1:%d,", ports[i])
		require.NoError(t, l.Close())
	}
	servers := make([]*Server, n)
	for i := range servers {
		servers[i] = Start(t, func(o *server.Options) {
			o.ServerName = fmt.Sprint("node", i)
			o.Cluster = server.ClusterOpts{Name: "natstest", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = server.RoutesFromStr(routes[:len(routes)-1])
		})
	}
	require.Eventually(t, func() bool {
		led := false
		for _, s := range servers {
			if !s.s.JetStreamIsCurrent() {
				return false
			}
			led = led || s.s.JetStreamIsLeader()
		}
		return led
	}, startTimeout, 10*time.Millisecond)
	return servers
}
