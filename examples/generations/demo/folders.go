package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// Folders are the folders of the generations, each named after its own, such as g7. The
// name is the label: a folder never changes hands.
type folders struct{ root string }

// removing is how the name of a folder begins that is being removed, such as
// .removing-g7-1767225600-ABCDEFGH: its own name, since when, and by whom.
const removing = ".removing-"

// make makes the folder of a generation, unless it is there: a process of the generation
// that starts anew uses the same one. Files are put into data, so that the time of the
// folder itself stays that of its making.
func (f folders) make(token fence.Token) error {
	return os.MkdirAll(filepath.Join(f.root, nameOf(token.Generation), "data"), 0o755)
}

func nameOf(g generation.Generation) string { return "g" + g.String() }

// generationOf returns the generation in a name like g7.
func generationOf(name string) (generation.Generation, bool) {
	digits, found := strings.CutPrefix(name, "g")
	g, err := generation.Parse(digits)
	return g, found && err == nil && nameOf(g) == name
}

// source lists the folders.
func (f folders) source() reap.Source {
	return reap.Source{Delete: f.delete, List: func(context.Context) ([]reap.Item, error) {
		return f.list(func(name string, info fs.FileInfo) (g generation.Generation, at time.Time, ok bool) {
			g, ok = generationOf(name)
			return g, info.ModTime(), ok
		})
	}}
}

// rest lists what killed reapers have left of folders. A living one may be at work on
// what is young.
func (f folders) rest() reap.Source {
	return reap.Source{
		List: func(context.Context) ([]reap.Item, error) { return f.list(restOf) },
		Delete: func(_ context.Context, item reap.Item) error {
			if _, err := os.Lstat(filepath.Join(f.root, item.ID)); err != nil { // of which RemoveAll says nothing
				return f.missing(item, err)
			}
			return os.RemoveAll(filepath.Join(f.root, item.ID))
		},
	}
}

func restOf(name string, _ fs.FileInfo) (g generation.Generation, at time.Time, ok bool) {
	rest, found := strings.CutPrefix(name, removing)
	part := strings.Split(rest, "-")
	if !found || len(part) != 3 {
		return g, at, false
	}
	g, ok = generationOf(part[0])
	since, err := strconv.ParseInt(part[1], 10, 64)
	return g, time.Unix(since, 0), ok && err == nil
}

// list lists the folders that are says to be ours.
func (f folders) list(are func(string, fs.FileInfo) (generation.Generation, time.Time, bool)) (items []reap.Item, err error) {
	entries, err := os.ReadDir(f.root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if g, at, ok := are(e.Name(), info); ok && e.IsDir() {
			items = append(items, reap.Item{ID: e.Name(), Made: fence.Token{Generation: g}, At: at})
		}
	}
	return items, nil
}

// delete renames the folder first, which exactly one reaper can. So nobody sees half a
// folder, and the others are told that it is gone.
func (f folders) delete(_ context.Context, item reap.Item) error {
	name := fmt.Sprintf("%s%s-%d-%s", removing, item.ID, time.Now().Unix(), rand.Text()[:8])
	err := os.Rename(filepath.Join(f.root, item.ID), filepath.Join(f.root, name))
	if err != nil {
		return f.missing(item, err)
	}
	return os.RemoveAll(filepath.Join(f.root, name))
}

// missing says that a folder is gone if that is what err means. Without the root, nothing
// is known of a folder.
func (f folders) missing(item reap.Item, err error) error {
	if _, rerr := os.Stat(f.root); errors.Is(err, fs.ErrNotExist) && rerr == nil {
		return fmt.Errorf("%w: %s", reap.ErrGone, item.ID)
	}
	return err
}
