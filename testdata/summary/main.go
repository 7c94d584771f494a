// Command summary reads `go test -json` and prints what failed, what was
// skipped and why, and a closing line of counts.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

func main() {
	output := map[string]*strings.Builder{}
	counts := map[string]int{}
	var failed, skipped []string
	dec := json.NewDecoder(os.Stdin)
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			fmt.Println("summary:", err)
			os.Exit(1)
		}
		if e.Package == "" {
			e.Package = e.ImportPath
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				if e.Action != "skip" {
					fmt.Printf("%-5s %s  %.1fs\n", e.Action, e.Package, e.Elapsed)
				}
				if e.Action != "fail" {
					break
				}
			}
			counts[e.Action]++
			if e.Action == "fail" {
				failed = append(failed, key)
			} else if e.Action == "skip" {
				skipped = append(skipped, key+": "+reason(output[key]))
			}
		}
	}
	sort.Strings(skipped)
	for _, s := range skipped {
		fmt.Println("skipped", s)
	}
	for _, key := range failed {
		if b := output[key]; b != nil {
			fmt.Printf("--- failed: %s\n%s", key, tail(b.String()))
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
	if counts["fail"] > 0 || counts["pass"] == 0 {
		os.Exit(1)
	}
}

// reason is the line of a skipped test that says why.
func reason(b *strings.Builder) string {
	if b == nil {
		return "no reason given"
	}
	for _, line := range strings.Split(b.String(), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return "no reason given"
}

// tail keeps a failure readable.
func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "[…]" + s[len(s)-most:]
	}
	return s
}
