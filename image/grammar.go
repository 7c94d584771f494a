package image

import "strings"

// The grammar of the distribution specification, by hand: to compile it as regular
// expressions takes as long as all that a start does with its image.

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'z' }
func isAlnum(c byte) bool { return isLower(c) || 'A' <= c && c <= 'Z' }

// lead is how many bytes of s, from the first on, are in a class.
func lead(s string, class func(byte) bool) int {
	for i := range len(s) {
		if !class(s[i]) {
			return i
		}
	}
	return len(s)
}

// validPath is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, any number of times between slashes.
func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !validPart(part) {
			return false
		}
	}
	return true
}

func validPart(s string) bool {
	for {
		n := lead(s, isLower)
		if s = s[n:]; n == 0 || s == "" {
			return n > 0
		}
		n = lead(s, func(c byte) bool { return !isLower(c) })
		if sep := s[:n]; sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		s = s[n:]
	}
}

// validHost is a domain name or an address in brackets, with a port or without.
func validHost(s string) bool {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		port := s[i+1:]
		if n := lead(port, isDigit); n != len(port) || n < 1 || n > 5 {
			return false
		}
		s = s[:i]
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		isAddress := func(c byte) bool { return isDigit(c) || 'a' <= c|' ' && c|' ' <= 'f' || c == ':' }
		return ok && inner != "" && lead(inner, isAddress) == len(inner)
	}
	for label := range strings.SplitSeq(s, ".") {
		isLabel := func(c byte) bool { return isAlnum(c) || c == '-' }
		if label == "" || lead(label, isLabel) != len(label) || label[0] == '-' || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return true
}

// validTag is [A-Za-z0-9_][A-Za-z0-9._-]{0,127}.
func validTag(s string) bool {
	isTag := func(c byte) bool { return isAlnum(c) || c == '_' || c == '.' || c == '-' }
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && lead(s, isTag) == len(s)
}
