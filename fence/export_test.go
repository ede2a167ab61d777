package fence

// AtGateSteps has fn called between the steps by which g saves a register.
func AtGateSteps(g *Gate, fn func(point string)) { g.file.reach = fn }

// GateLock returns the descriptor of the lock that g has.
func GateLock(g *Gate) int { return int(g.file.lock.Fd()) }

// WaitingToBeSaved returns how many changes of g wait for a save under way.
func WaitingToBeSaved(g *Gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.edits)
}
