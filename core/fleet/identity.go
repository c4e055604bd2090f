package fleet

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	natslease "github.com/RolnickLab/natslease/core"
)

// Identity is a worker's place: only one worker may have it at a time.
type Identity struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	Slot    string `json:"slot"` // such as the number of a GPU
}

// String is "service@host/slot".
func (i Identity) String() string { return i.Service + "@" + i.Host + "/" + i.Slot }

// less orders identities by service, host and slot.
func (i Identity) less(other Identity) bool {
	switch {
	case i.Service != other.Service:
		return i.Service < other.Service
	case i.Host != other.Host:
		return i.Host < other.Host
	}
	return i.Slot < other.Slot
}

const maxPart = 200

func (i Identity) check() error {
	for name, part := range map[string]string{"service": i.Service, "host": i.Host, "slot": i.Slot} {
		switch {
		case part == "":
			return refused(natslease.CodeConfig, "%s: is empty", name)
		case len(part) > maxPart:
			return refused(natslease.CodeConfig, "%s: is %d bytes long: at most %d are allowed", name, len(part), maxPart)
		case !utf8.ValidString(part) || strings.ContainsFunc(part, func(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) }):
			return refused(natslease.CodeConfig, "%s: %+q has characters that cannot be shown", name, part)
		}
	}
	return nil
}

// key is the record's key: what a key cannot have stands there as "=" and two hexadecimal digits.
func (i Identity) key() string {
	return escape(i.Service) + "." + escape(i.Host) + "." + escape(i.Slot)
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(nameRunes, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// DefaultHost is the name of this machine with the number of the process-id namespace: containers may have the same
// hostname and are different hosts, those that share their processes are the same.
var DefaultHost = sync.OnceValue(func() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return host
	}
	return host + "~" + strings.Trim(strings.TrimPrefix(namespace, "pid:"), "[]")
})
