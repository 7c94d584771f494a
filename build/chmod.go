package build

import (
	"fmt"
	"strconv"
	"strings"
)

// A chmod turns a file's mode into the one that --chmod asks for. nil keeps it.
type chmod func(mode uint32, dir bool) uint32

// parseChmod reads an octal mode up to 07777, or chmod(1)'s symbols:
// [ugoa]*[-+=][rwxXst]*, separated by commas.
func parseChmod(s string) (chmod, error) {
	if s == "" {
		return nil, nil
	}
	if s[0] >= '0' && s[0] <= '9' {
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > 0o7777 {
			return nil, fmt.Errorf("--chmod=%s: want octal digits up to 07777, or symbols such as u=rwX,go=rX", s)
		}
		return func(uint32, bool) uint32 { return uint32(n) }, nil
	}
	var changes []chmod
	for clause := range strings.SplitSeq(s, ",") {
		c, err := parseChmodClause(clause)
		if err != nil {
			return nil, fmt.Errorf("--chmod=%s: %w", s, err)
		}
		changes = append(changes, c...)
	}
	return func(mode uint32, dir bool) uint32 {
		for _, c := range changes {
			mode = c(mode, dir)
		}
		return mode
	}, nil
}

func parseChmodClause(clause string) (changes []chmod, err error) {
	who, i := uint32(0), 0
	for ; i < len(clause) && strings.IndexByte("ugoa", clause[i]) >= 0; i++ {
		who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[clause[i]]
	}
	if who == 0 {
		who = 0o7777
	}
	if i == len(clause) {
		return nil, fmt.Errorf("%q: want one of + - =", clause)
	}
	for i < len(clause) {
		op := clause[i]
		if strings.IndexByte("+-=", op) < 0 {
			return nil, fmt.Errorf("%q: want one of + - =, not %q", clause, op)
		}
		end := i + 1
		for end < len(clause) && strings.IndexByte("rwxXst", clause[end]) >= 0 {
			end++
		}
		changes = append(changes, chmodOp(who, op, clause[i+1:end]))
		i = end
	}
	return changes, nil
}

// chmodOp is one operator with its permissions.
func chmodOp(who uint32, op byte, perms string) chmod {
	return func(mode uint32, dir bool) uint32 {
		var bits uint32
		for _, p := range perms {
			switch p {
			case 'r':
				bits |= 0o444
			case 'w':
				bits |= 0o222
			case 'x':
				bits |= 0o111
			case 'X':
				// Execution for directories and for what somebody may execute already.
				if dir || mode&0o111 != 0 {
					bits |= 0o111
				}
			case 's':
				bits |= 0o6000
			case 't':
				bits |= 0o1000
			}
		}
		bits &= who
		switch op {
		case '+':
			return mode | bits
		case '-':
			return mode &^ bits
		}
		return mode&^(who&0o777) | bits
	}
}
