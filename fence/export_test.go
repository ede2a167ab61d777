package fence

import (
	"context"
	"os"
)

// AtGateSteps has fn called between the steps by which g saves a register.
func AtGateSteps(g *Gate, fn func(point string)) { g.file.reach = fn }

// SyncsOfGate has fn sync the files and folders of g.
func SyncsOfGate(g *Gate, fn func(*os.File) error) { g.file.sync = fn }

// GateLock returns the descriptor of the lock that g has.
func GateLock(g *Gate) int { return int(g.file.lock.Fd()) }

// WaitingToBeSaved returns how many changes of g wait for a save under way.
func WaitingToBeSaved(g *Gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.edits)
}

// Raise has g take over what the catalog has answered to one of those who asked.
func Raise(ctx context.Context, g *Gate, to RegisterState) error { return g.raise(ctx, to) }

// NewSignedGateInMemory returns what NewGate refuses to make.
func NewSignedGateInMemory(v *Verifier) (*Gate, error) { return newGate(GateConfig{Signed: v}) }
