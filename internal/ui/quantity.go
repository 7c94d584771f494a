package ui

import (
	"fmt"
	"strings"
	"time"

	units "github.com/docker/go-units"
)

// Size is n bytes in decimal units with three digits, as in docker's listings:
// 1.99MB.
func Size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// Binary is n bytes in binary units, as docker shows memory: 1.477MiB.
func Binary(n int64) string { return units.BytesSize(float64(n)) }

// Ago is the time since t in docker's words: "About a minute ago".
func Ago(t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return Duration(time.Since(t)) + " ago"
}

// Duration is d in docker's words: "13 seconds", "About an hour".
func Duration(d time.Duration) string { return units.HumanDuration(d) }

// Bytes is a number of bytes on the command line: docker's 64m, 1g, 512k in
// binary units, or a plain number.
type Bytes int64

// UnmarshalText parses docker's sizes; -1 stands for no limit where a flag
// allows it.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "-1" {
		*b = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return fmt.Errorf("invalid size %q (want a number with b, k, m or g)", s)
	}
	*b = Bytes(n)
	return nil
}

// ParseTime reads a moment as docker's --since and --until take it: RFC 3339
// with any tail left out, seconds since 1970 with a fraction, or a duration
// before now.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
		"2006-01-02T15Z07:00", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return parseUnix(s)
}

func parseUnix(s string) (time.Time, error) {
	whole, frac, _ := strings.Cut(s, ".")
	var sec, nsec int64
	if _, err := fmt.Sscanf(whole+"\n", "%d\n", &sec); err != nil || strings.TrimLeft(whole, "-0123456789") != "" {
		return time.Time{}, fmt.Errorf("invalid time %q (want RFC 3339, a unix time or a duration such as 10m)", s)
	}
	if frac != "" {
		if len(frac) > 9 || strings.Trim(frac, "0123456789") != "" {
			return time.Time{}, fmt.Errorf("invalid time %q: fraction of a second", s)
		}
		fmt.Sscanf((frac + "000000000")[:9], "%d", &nsec)
	}
	return time.Unix(sec, nsec), nil
}
