package natslease

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The checks below return what is wrong, or "".

// checkText is for texts that are only shown.
func checkText(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !isPrintable(r) }) {
		return "has control or other unprintable characters"
	}
	return ""
}

// isPrintable tells whether r can be shown: no control characters, no spaces but the ASCII one.
func isPrintable(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsPrint(r)
}

// isTokenRune tells whether r may stand in a token of a subject that is meant literally.
func isTokenRune(r rune) bool {
	switch r {
	case ' ', '.', '*', '>', utf8.RuneError:
		return false
	}
	return isPrintable(r)
}

// checkToken is for what becomes one token of a subject.
func checkToken(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxNameLen:
		return fmt.Sprintf("is %d bytes long: at most %d are allowed", len(s), maxNameLen)
	}
	for _, r := range s {
		if !isTokenRune(r) {
			return fmt.Sprintf("%s must not have %s", excerpt(s), describe(r))
		}
	}
	return ""
}

// checkName is for names of streams and consumers, which the server also uses as directory names.
func checkName(s string) string {
	if finding := checkToken(s); finding != "" {
		return finding
	}
	if i := strings.IndexAny(s, `/\`); i >= 0 {
		return fmt.Sprintf("%s must not have %s", excerpt(s), describe(rune(s[i])))
	}
	return ""
}

// checkSubject is for subjects that are meant literally.
func checkSubject(s string, limit int) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > limit:
		return fmt.Sprintf("is %d bytes long: at most %d are allowed", len(s), limit)
	case s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, ".."):
		return excerpt(s) + " has an empty part before, after or between its dots"
	}
	for _, r := range s {
		if r != '.' && !isTokenRune(r) {
			return fmt.Sprintf("%s must not have %s", excerpt(s), describe(r))
		}
	}
	return ""
}

func describe(r rune) string {
	switch {
	case r == '*' || r == '>':
		return fmt.Sprintf("the wildcard %q", r)
	case r == ' ':
		return "spaces"
	case r == utf8.RuneError:
		return "bytes that are not UTF-8"
	case !isPrintable(r):
		return fmt.Sprintf("the unprintable character %+q", r)
	default:
		return fmt.Sprintf("%q", r)
	}
}

// excerpt quotes the beginning of a text that came from outside.
func excerpt(s string) string {
	const limit = 48
	if len(s) <= limit {
		return fmt.Sprintf("%+q", s)
	}
	return fmt.Sprintf("%+q...", s[:limit])
}
