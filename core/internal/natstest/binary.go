//go:build linux

package natstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Version is one of the two servers that everything is tried against.
type Version string

const (
	// Newest is the nats-server of the module's go.mod.
	Newest Version = "nats-server"
	// Oldest is the oldest nats-server that is supported, of the tools module of its own.
	Oldest Version = "nats-server-oldest"
)

// variable names the environment variable that overrides the binary.
func (v Version) variable() string {
	if v == Oldest {
		return "NATSLEASE_NATS_SERVER_OLDEST"
	}
	return "NATSLEASE_NATS_SERVER"
}

// module is the directory whose go.mod says which nats-server it is.
func (v Version) module(root string) string {
	if v == Oldest {
		return filepath.Join(root, "tests", "tools", "nats-server-oldest")
	}
	return root
}

var (
	buildMu sync.Mutex
	built   = make(map[Version]string)
)

// serverBinary finds a server's binary: the one that the environment names, the one that make has built, or one built
// now into the user's cache.
func serverBinary(t testing.TB, v Version) string {
	t.Helper()
	if path := os.Getenv(v.variable()); path != "" {
		require.FileExists(t, path, v.variable())
		return path
	}
	root := moduleRoot(t)
	if path := filepath.Join(root, "build", "bin", string(v)); isFile(path) {
		return path
	}
	buildMu.Lock()
	defer buildMu.Unlock()
	if path, ok := built[v]; ok {
		return path
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "natslease", "bin")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	// Other test binaries may be building the same: each into its own file, which then takes the place.
	unfinished, err := os.MkdirTemp(dir, "build")
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(unfinished) }()
	cmd := exec.Command("go", "build", "-o", filepath.Join(unfinished, string(v)), "github.com/nats-io/nats-server/v2")
	cmd.Dir = v.module(root)
	output, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "building %s: %s", v, output)
	path := filepath.Join(dir, string(v))
	require.NoError(t, os.Rename(filepath.Join(unfinished, string(v)), path))
	built[v] = path
	return path
}

// moduleRoot is the nearest directory above with a go.mod: tests run in the directory of their package.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for !isFile(filepath.Join(dir, "go.mod")) {
		parent := filepath.Dir(dir)
		require.NotEqual(t, parent, dir, "no go.mod above the tests")
		dir = parent
	}
	return dir
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
