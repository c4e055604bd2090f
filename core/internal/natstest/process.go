//go:build linux

package natstest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Process is a nats-server of its own process, with JetStream in a temporary directory: it can be frozen and killed.
type Process struct {
	// Name is what the server is called in a cluster.
	Name string

	t      testing.TB
	binary string
	dir    string
	config string
	port   string // chosen by the first start
	web    string

	pid    int
	ended  chan struct{} // closed when the process has ended
	log    *processLog
	frozen bool
}

// StartProcess starts a server of the given version on a free port. It ends with the test. Lines of extra go into its
// configuration file.
func StartProcess(t testing.TB, version Version, extra ...string) *Process {
	t.Helper()
	p := &Process{t: t, binary: serverBinary(t, version), dir: t.TempDir(), port: "-1", web: "-1"}
	p.config = strings.Join(extra, "\n")
	p.Start()
	t.Cleanup(func() {
		if p.running() {
			p.Kill()
		}
	})
	return p
}

var (
	clientPort = regexp.MustCompile(`Listening for client connections on \S+:(\d+)`)
	webPort    = regexp.MustCompile(`Starting http monitor on \S+:(\d+)`)
)

// Start starts the server again, on the same port and with its data, and waits until it is ready.
func (p *Process) Start() {
	p.t.Helper()
	require.False(p.t, p.running(), "the server is running")
	config := fmt.Sprintf("host: 127.0.0.1\nport: %s\nhttp: \"127.0.0.1:%s\"\njetstream { store_dir: %q }\n%s\n",
		p.port, p.web, filepath.Join(p.dir, "data"), p.config)
	path := filepath.Join(p.dir, "nats.conf")
	require.NoError(p.t, os.WriteFile(path, []byte(config), 0o600))

	cmd := exec.Command(p.binary, "-c", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := cmd.StderrPipe()
	require.NoError(p.t, err)
	p.log = &processLog{ready: make(chan struct{})}
	p.ended = make(chan struct{})
	p.frozen = false
	started := make(chan error)
	go func(ended chan struct{}, log *processLog) {
		// Pdeathsig kills the server when this thread ends, so the thread has to live as long as the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		log.read(output)
		_ = cmd.Wait()
		close(ended)
	}(p.ended, p.log)
	require.NoError(p.t, <-started)
	p.pid = cmd.Process.Pid

	select {
	case <-p.log.ready:
	case <-p.ended:
		require.FailNow(p.t, "the server ended at once", p.Log())
	case <-time.After(startTimeout):
		p.Kill()
		require.FailNow(p.t, "the server did not start", p.Log())
	}
	p.port, p.web = p.log.find(clientPort), p.log.find(webPort)
}

func (p *Process) running() bool {
	if p.ended == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Freeze stops the server with SIGSTOP and returns when all of its threads stand still.
func (p *Process) Freeze() {
	p.t.Helper()
	require.NoError(p.t, unix.Kill(p.pid, unix.SIGSTOP))
	// The kernel reports the stop when the last thread has stopped. WNOWAIT leaves an end, should there be one, to
	// cmd.Wait.
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, p.pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			require.NoError(p.t, err)
			break
		}
	}
	p.frozen = true
}

// Thaw lets a frozen server go on.
func (p *Process) Thaw() {
	p.t.Helper()
	require.NoError(p.t, unix.Kill(p.pid, unix.SIGCONT))
	p.frozen = false
}

// Kill ends the server with SIGKILL and returns when it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.signal(unix.SIGKILL)
}

// Stop ends the server as an operator would, with SIGTERM, and returns when it is gone.
func (p *Process) Stop() {
	p.t.Helper()
	if p.frozen {
		p.Thaw()
	}
	p.signal(unix.SIGTERM)
}

func (p *Process) signal(s unix.Signal) {
	p.t.Helper()
	require.NoError(p.t, unix.Kill(p.pid, s))
	select {
	case <-p.ended:
	case <-time.After(startTimeout):
		require.FailNow(p.t, "the server did not end", p.Log())
	}
}

// LameDuck announces the shutdown to the clients; the server ends some time later.
func (p *Process) LameDuck() {
	p.t.Helper()
	require.NoError(p.t, unix.Kill(p.pid, unix.SIGUSR2))
}

// Restart kills the server, if it runs, and starts it on the same port with its data.
func (p *Process) Restart() {
	p.t.Helper()
	if p.running() {
		p.Kill()
	}
	p.Start()
}

// Addr is host:port.
func (p *Process) Addr() string { return "127.0.0.1:" + p.port }

// URL is nats://host:port.
func (p *Process) URL() string { return "nats://" + p.Addr() }

// Pid is the server's process id.
func (p *Process) Pid() int { return p.pid }

// Log is what the server has written.
func (p *Process) Log() string { return p.log.text() }

// Connections is how many clients are connected.
func (p *Process) Connections() int {
	p.t.Helper()
	var connz struct {
		Connections int `json:"num_connections"`
	}
	p.monitor("connz", &connz)
	return connz.Connections
}

// TotalConnections is how many clients have ever been connected since the start.
func (p *Process) TotalConnections() uint64 {
	p.t.Helper()
	var varz struct {
		Total uint64 `json:"total_connections"`
	}
	p.monitor("varz", &varz)
	return varz.Total
}

func (p *Process) monitor(page string, answer any) {
	p.t.Helper()
	client := http.Client{Timeout: startTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:" + p.web + "/" + page)
	require.NoError(p.t, err)
	defer func() { _ = response.Body.Close() }()
	require.NoError(p.t, json.NewDecoder(response.Body).Decode(answer))
}

// processLog keeps a server's log and tells when it says that it is ready.
type processLog struct {
	ready chan struct{}

	mu    sync.Mutex
	lines []string
}

func (l *processLog) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	ready := false
	for lines.Scan() {
		line := lines.Text()
		l.mu.Lock()
		l.lines = append(l.lines, line)
		l.mu.Unlock()
		if !ready && strings.Contains(line, "Server is ready") {
			ready = true
			close(l.ready)
		}
	}
}

func (l *processLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *processLog) find(pattern *regexp.Regexp) string {
	if match := pattern.FindStringSubmatch(l.text()); match != nil {
		return match[1]
	}
	return ""
}
