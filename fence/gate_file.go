package fence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/fencepost/fencepost/exitcodes"
)

// A file of registers is JSON, for people too. It is only ever replaced whole: a
// new file is written and synced under another name, renamed, and its folder
// synced. A lock on a second file, which is never replaced, keeps other processes
// away.

const (
	gateFormat  = "fencepost gate 1"
	newEnding   = "-new"  // the next content, until it is complete
	lockEnding  = "-lock" // locked by the process that has the file open
	maxGateFile = 32 << 20
	maxWho      = 256 // bytes of each text about a holder that are kept
)

var (
	// ErrGateInUse means that another process, or this one, has the file open.
	ErrGateInUse = errors.New("the file of registers is in use")

	// ErrGateFile means that a file holds no registers that could be read.
	ErrGateFile = errors.New("not a file of registers")
)

type gateDoc struct {
	Format    string                  `json:"format"`
	Registers map[string]gateRegister `json:"registers"`
}

type gateRegister struct {
	Token Token  `json:"token"`
	By    Holder `json:"holder"`
}

// OpenGate returns a Gate whose registers are kept in the file at path: they survive
// the process, so that a lower token is refused at once after a restart, whether or
// not the catalog can be read. A register is durable before anything is admitted
// under its token.
//
// The file is created with the owner of its folder and the mode that the folder
// gives; later it keeps its own. By signatures it has to be there: that it was lost can
// only be told from a first start by whoever runs the server, and the error says what
// to write into it. It is locked while the Gate is open: if another
// process has it, the error wraps [ErrGateInUse]. A file that can't be read is an
// error that wraps [ErrGateFile], and is never taken for an empty one. The file
// must be on a disk of this host. Don't put an older copy in its place: a token that
// equals a register is admitted. If the lock file beside it is removed or replaced, no
// register rises until the process is started again.
func OpenGate(path string, cfg GateConfig) (*Gate, error) {
	g, err := newGate(cfg)
	if err != nil {
		return nil, err
	}
	f := &gateFile{path: path, must: cfg.Signed != nil, reach: func(string) {}, sync: (*os.File).Sync}
	all, err := f.open(g.cfg.MaxResources)
	if errors.Is(err, ErrGateFile) {
		err = fmt.Errorf("%w: %s", err, g.cfg.withoutFile())
	}
	if err != nil {
		g.cancel()
		return nil, exitcodes.WithCode(fmt.Errorf("fence: gate: %w", err), exitcodes.Config)
	}
	g.file = f
	for _, r := range all {
		g.become(r)
	}
	return g, nil
}

// withoutFile says how a file is given up that can't be read. An older copy of it is
// no remedy: the older holder's token would equal its register, and be admitted.
func (c GateConfig) withoutFile() string {
	if c.Signed != nil {
		return "if this server has never run, or older holders are gone, write " + emptyGate + " into it while no process has it open: every register is then empty, and rises for the first signed token"
	}
	return "remove it while no process has it open: every register is then empty, and rises to what the catalog says"
}

// emptyGate is a file without registers.
const emptyGate = `{"format":"` + gateFormat + `","registers":{}}`

type gateFile struct {
	path  string
	must  bool // be there
	lock  *os.File
	reach func(point string)   // called between the steps of save, for tests
	sync  func(*os.File) error // of files and folders; fails in tests
}

// open locks the file and reads it.
func (f *gateFile) open(limit int) (all map[string]RegisterState, err error) {
	if f.lock, err = openLock(f.path); err != nil {
		return nil, err
	}
	if all, err = f.load(limit); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return all, nil
}

// close releases the lock, also for a child process that was forked just now and has
// not closed its copy of the file yet. The lock's file stays: removing a lock file
// lets two processes have the lock.
func (f *gateFile) close() error { return errors.Join(unlock(f.lock), f.lock.Close()) }

// stillLocked makes sure that others find the lock that this process has.
func (f *gateFile) stillLocked() error {
	mine, err := f.lock.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(f.lock.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, now) {
		return fmt.Errorf("%w, perhaps: %s was removed or replaced, so that another process may have the registers too: restart this process", ErrGateInUse, f.lock.Name())
	}
	return err
}

// load reads the file, which may not be there yet.
func (f *gateFile) load(limit int) (map[string]RegisterState, error) {
	text, err := readRegular(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		if f.must {
			return nil, fmt.Errorf("%w: %w", ErrGateFile, err)
		}
		return nil, nil
	}
	if err == nil {
		var all map[string]RegisterState
		if all, err = parseRegisters(text, limit); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", f.path, err)
}

// readRegular reads a file that is no link, device or pipe, has one name and is not
// too large.
func readRegular(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is %v, want a regular file: find out who put it there", ErrGateFile, info.Mode().Type())
	}
	if n := names(info); n > 1 {
		return nil, fmt.Errorf("%w: it has %d names, each of which has a lock of its own: remove all but one", ErrGateFile, n)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxGateFile+1))
	if err == nil && len(text) > maxGateFile {
		err = fmt.Errorf("%w: it has more than %d bytes", ErrGateFile, maxGateFile)
	}
	return text, err
}

func parseRegisters(text []byte, limit int) (map[string]RegisterState, error) {
	malformed := func(err error) error { return fmt.Errorf("%w: %w", ErrGateFile, err) }
	var doc gateDoc
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed(errors.New("something follows its end"))
	}
	if doc.Format != gateFormat {
		return nil, malformed(fmt.Errorf("its format is %.64q, want %q", doc.Format, gateFormat))
	}
	if doc.Registers == nil {
		return nil, malformed(errors.New("it has no registers"))
	}
	if len(doc.Registers) > limit {
		return nil, malformed(fmt.Errorf("%w: %d, want MaxResources, %d, at most", ErrTooManyResources, len(doc.Registers), limit))
	}
	all := make(map[string]RegisterState, len(doc.Registers))
	for name, r := range doc.Registers {
		if !isName(name) || r.Token.IsZero() {
			return nil, malformed(fmt.Errorf("register %.64q with token %v", name, r.Token))
		}
		all[name] = RegisterState{Resource: name, Token: r.Token, By: r.By}
	}
	return all, nil
}

// save replaces the file. After an error it holds what it did, or all.
func (f *gateFile) save(all map[string]RegisterState) (err error) {
	if err := f.stillLocked(); err != nil {
		return err
	}
	doc := gateDoc{Format: gateFormat, Registers: make(map[string]gateRegister, len(all))}
	for name, r := range all {
		doc.Registers[name] = gateRegister{Token: r.Token, By: clipped(r.By)}
	}
	text, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	if len(text) >= maxGateFile {
		return fmt.Errorf("%w: %d bytes, want %d at most", ErrGateFile, len(text), maxGateFile)
	}
	if err := f.write(append(text, '\n')); err != nil {
		return err
	}
	f.reach("written")
	if err := os.Rename(f.path+newEnding, f.path); err != nil {
		return err
	}
	f.reach("renamed")
	if err := f.syncFolder(); err != nil {
		return err
	}
	f.reach("saved")
	return nil
}

// write puts text into a new file beside the one that it is to replace.
func (f *gateFile) write(text []byte) error {
	name := f.path + newEnding
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a process that died
		return err
	}
	out, err := createLike(f.path, name)
	if err != nil {
		return err
	}
	f.reach("created")
	_, err = out.Write(text)
	if err == nil {
		err = f.sync(out)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// clipped bounds the texts about a holder.
func clipped(h Holder) Holder {
	for _, s := range []*string{&h.Name, &h.Address, &h.Build} {
		for len(*s) > maxWho || !utf8.ValidString(*s) {
			*s = (*s)[:min(len(*s)-1, maxWho)]
		}
	}
	return h
}

func (f *gateFile) syncFolder() error {
	folder, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(f.sync(folder), folder.Close())
}
