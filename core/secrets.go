package natslease

import (
	"net/url"
	"slices"
	"strings"
	"sync"
)

// shortestSecret is the length from which a secret is looked for as it is: shorter ones are in every other text.
const shortestSecret = 4

// secretsInUse are the secrets of the process's connections. A server, or what stands between, may quote what it was
// sent in a form that no pattern knows.
var secretsInUse secrets

// secrets counts who uses which.
type secrets struct {
	mu    sync.Mutex
	users map[string]int
	all   []string
}

func (s *secrets) add(cfg *Config)    { s.count(cfg, 1) }
func (s *secrets) remove(cfg *Config) { s.count(cfg, -1) }

func (s *secrets) count(cfg *Config, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = make(map[string]int)
	}
	for _, secret := range cfg.secrets() {
		if s.users[secret] += n; s.users[secret] == 0 {
			delete(s.users, secret)
		}
	}
	s.all = s.all[:0:0]
	for secret := range s.users {
		s.all = append(s.all, secret)
	}
	slices.SortFunc(s.all, func(a, b string) int { return len(b) - len(a) })
}

// longestFirst returns them so that none is cut up by one that is a part of it.
func (s *secrets) longestFirst() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// secrets are those among the options. What is in a credentials file has a form of its own: see secretShapes.
func (c Config) secrets() []string {
	found := []string{c.Password, c.Token, strings.TrimSpace(c.NKeySeed)}
	for _, server := range c.Servers {
		u, err := url.Parse(server)
		if err != nil || u.User == nil {
			continue
		}
		password, ok := u.User.Password()
		if !ok {
			password = u.User.Username() // a token
		}
		found = append(found, password, url.QueryEscape(password), url.PathEscape(password))
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(s string) bool { return len(s) < shortestSecret })
}
