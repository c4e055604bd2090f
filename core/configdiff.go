package natslease

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// fields spreads a configuration into its JSON fields.
func fields(config any) map[string]json.RawMessage {
	data, err := json.Marshal(config)
	if err != nil {
		panic(err) // the package's own structs of strings and numbers
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

// configDifferences names every field in which two configurations of one type differ.
func configDifferences(have, want any) []string {
	h, w := fields(have), fields(want)
	var differences []string
	for name, value := range w {
		if string(h[name]) != string(value) {
			differences = append(differences, fmt.Sprintf("%s is %s, not %s", name, orNone(h[name]), value))
		}
	}
	slices.Sort(differences)
	return differences
}

func orNone(value json.RawMessage) string {
	if value == nil {
		return "not set"
	}
	return string(value)
}

// overlay lays config over the server's own one.
func overlay(raw json.RawMessage, config any) (json.RawMessage, error) {
	merged := make(map[string]json.RawMessage)
	if err := json.Unmarshal(raw, &merged); err != nil {
		return nil, err
	}
	for name, value := range fields(config) {
		merged[name] = value
	}
	return json.Marshal(merged)
}

// covered tells whether any of the patterns, which may have wildcards, takes the subject.
func covered(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return covers(pattern, subject) })
}

func covers(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		if token == ">" {
			return len(s) > i
		}
		if i >= len(s) || token != "*" && token != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}
