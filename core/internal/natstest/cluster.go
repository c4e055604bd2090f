package natstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// StartCluster starts n servers that form a cluster, and waits until JetStream has a leader. They end with the test.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	ports, routes := clusterPorts(t, n)
	servers := make([]*Server, n)
	for i := range servers {
		servers[i] = Start(t, func(o *server.Options) {
			o.ServerName = fmt.Sprint("node", i)
			o.Cluster = server.ClusterOpts{Name: "natstest", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
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

// clusterPorts chooses n free ports for the routes between servers, and gives their URLs. They are below those that the
// system gives to whoever wants any: between the choice and the server's start nobody else takes them by chance.
func clusterPorts(t testing.TB, n int) (ports []int, routes []string) {
	t.Helper()
	for len(ports) < n {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }() // only when all are chosen: none is chosen twice
		ports = append(ports, port)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return ports, routes
}
