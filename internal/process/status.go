package process

import "github.com/fencepost/fencepost/exitcodes"

// The statuses of a command that can't be started, as shells have them.
const (
	NotExecutable exitcodes.Code = 126
	NotFound      exitcodes.Code = 127
)
