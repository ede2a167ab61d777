package process

import "strings"

// A Word is one message of a child to the service manager.
type Word struct {
	PID  int // of the sender, as the kernel says; it may have ended since
	UID  int // likewise
	Text string
}

// Lines are the assignments of the message.
func (w Word) Lines() (lines []string) {
	for line := range strings.Lines(w.Text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}
