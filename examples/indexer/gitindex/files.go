package gitindex

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fencepost/fencepost/fence"
)

// MaxName is the length of the longest name of a package, in bytes.
const MaxName = 64

// ErrName means that a text can't be the name of a package.
var ErrName = errors.New("not the name of a package")

// CheckName returns nil if name can be that of a package, and so of a file: a to z, 0
// to 9 and hyphens, the first one a letter. Its errors wrap [ErrName].
func CheckName(name string) error {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' }
	bad := func(r rune) bool { return !letter(r) && (r < '0' || r > '9') && r != '-' }
	if name == "" || len(name) > MaxName || !letter(rune(name[0])) || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%w: %.64q: want 1 to %d of a to z, 0 to 9 and hyphens, the first one a letter", ErrName, name, MaxName)
	}
	return nil
}

// Path returns where the index keeps a package.
func Path(name string) string { return filepath.Join(name[:min(2, len(name))], name) }

// Read returns what the index in a folder has for each package.
func Read(ctx context.Context, index string) (map[string]string, error) {
	g, err := findGit()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "index-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a copy
	if _, err := g.run(ctx, "", "clone", "--quiet", "--depth", "1", "--branch", "main", "file://"+index, dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	files := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		content, err := os.ReadFile(path)
		files[d.Name()] = string(content)
		return err
	})
	return files, err
}

// A Commit is one of an index.
type Commit struct {
	ID    string
	Token fence.Token // zero if it bears none
}

// History returns the commits of the index in a folder, the oldest first.
func History(ctx context.Context, index string) ([]Commit, error) {
	g, err := findGit()
	if err != nil {
		return nil, err
	}
	text, err := g.run(ctx, index, "log", "--reverse", "--format=%H "+trailerFormat, branch)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	var all []Commit
	for line := range strings.Lines(text) {
		id, bears, _ := strings.Cut(strings.TrimSpace(line), " ")
		c := Commit{ID: id}
		if bears != "" {
			if c.Token, err = fence.Parse(bears); err != nil {
				return nil, fmt.Errorf("commit %s: %w", id, err)
			}
		}
		all = append(all, c)
	}
	return all, nil
}
