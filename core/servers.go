package natslease

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// defaultPorts has the schemes that are understood.
var defaultPorts = map[string]string{"nats": "4222", "tls": "4222", "ws": "80", "wss": "443"}

// parseServers writes every URL out in full and moves the credentials in them to their own options.
func (c *Config) parseServers(p *problems) {
	if len(c.Servers) == 0 {
		p.add("Servers", "is empty: name at least one server, such as %s", defaultServer)
		return
	}
	var users []*url.Userinfo
	var plain, websocket bool
	servers := make([]string, 0, len(c.Servers))
	for i, entry := range c.Servers {
		for text := range strings.SplitSeq(entry, ",") {
			u, finding := parseServer(text)
			if finding != "" {
				p.add(fmt.Sprintf("Servers[%d]", i), "%s", finding)
				continue
			}
			if isWebsocket(u.Scheme) {
				websocket = true
			} else {
				plain = true
			}
			if u.User != nil {
				users = append(users, u.User)
				u.User = nil
			}
			servers = append(servers, u.String())
		}
	}
	if plain && websocket {
		p.add("Servers", "mixes ws:// or wss:// with nats:// or tls://: use one or the other")
	}
	c.Servers = servers
	c.takeUsers(users, p)
}

// parseServer reads one URL. What it finds wrong is said without repeating a password: net/url's own errors quote one.
func parseServer(text string) (*url.URL, string) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, "is empty: write a URL such as " + defaultServer
	}
	shown := redactURL(text)
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Sprintf("%q is no URL such as %s (the port is a number, and special characters in a password are percent-encoded)",
			shown, defaultServer)
	}
	port, known := defaultPorts[u.Scheme]
	if !known {
		return nil, fmt.Sprintf("%q: unknown scheme %q: use nats, tls, ws or wss", shown, u.Scheme)
	}
	host := u.Hostname()
	if host == "" {
		return nil, fmt.Sprintf("%q has no host", shown)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return !isPrintable(r) || r == ' ' }) {
		return nil, fmt.Sprintf("%q: a host has no spaces and no control characters", shown)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, fmt.Sprintf("%q: port %s is not between 1 and 65535", shown, port)
	}
	u.Host = net.JoinHostPort(host, port)
	if u.Path == "/" {
		u.Path = ""
	}
	if !isWebsocket(u.Scheme) && (u.Path != "" || u.RawQuery != "") || u.Fragment != "" {
		return nil, fmt.Sprintf("%q: only a ws or wss URL has a path, and none has a fragment", shown)
	}
	return u, ""
}

func isWebsocket(scheme string) bool { return scheme == "ws" || scheme == "wss" }

// takeUsers moves what stood before the hosts into User and Password, or Token.
func (c *Config) takeUsers(users []*url.Userinfo, p *problems) {
	if len(users) == 0 {
		return
	}
	first := *users[0]
	if slices.ContainsFunc(users, func(u *url.Userinfo) bool { return *u != first }) {
		p.add("Servers", "has different credentials in its URLs: all servers of a system take the same")
		return
	}
	password, hasPassword := first.Password()
	if hasPassword {
		if c.User != "" && c.User != first.Username() || c.Password != "" && c.Password != password {
			p.add("Servers", "has other credentials than User and Password: set one or the other")
			return
		}
		c.User, c.Password = first.Username(), password
		return
	}
	if c.User != "" && c.User == first.Username() && c.Password != "" {
		return // nats://user@host beside User and Password
	}
	if c.Token != "" && c.Token != first.Username() {
		p.add("Servers", "has another token than Token: set one or the other")
		return
	}
	c.Token = first.Username()
}
