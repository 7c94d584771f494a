package ui

import (
	"bufio"
	"strings"
)

// Confirm asks the user on the terminal; anything but y and yes is no.
func (o *Output) Confirm(warning string) bool {
	if o.In == nil {
		return false
	}
	o.Printf("%s\nAre you sure you want to continue? [y/N] ", warning)
	line, _ := bufio.NewReader(o.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
