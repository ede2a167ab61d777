// Package house states as tests which package may know of which, and what no
// package may do. It has no other code.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/fencepost/fencepost"

// A room says what the code of a package, tests aside, may import: which
// packages of ours, and which modules of others.
type room struct{ inside, outside []string }

// rooms states policy: imports go downwards only. Do not widen a line to make a
// build pass: move the code, or change the design first.
func rooms() map[string]room {
	numbers := []string{"exitcodes", "epoch", "generation", "fence"}
	belowDriver := append([]string{"catalog/driver", "internal/gather", "internal/step"}, numbers...)
	network := append([]string{"internal/neterr"}, belowDriver...)
	belowCatalog := append([]string{"catalog"}, belowDriver...)
	belowLeader := append([]string{"leader"}, belowCatalog...)
	program := append([]string{"internal/storeurl"}, belowLeader...)
	return map[string]room{
		"exitcodes":               {inside: []string{"internal/closing", "internal/stacks"}},
		"epoch":                   {},
		"generation":              {inside: []string{"exitcodes"}},
		"fence":                   {inside: []string{"epoch", "generation", "exitcodes", "internal/ownfile"}},
		"fence/internal/gatetest": {inside: []string{"fence", "internal/orders"}, outside: []string{"github.com/stretchr/testify"}},
		"fence/internal/wire":     {inside: []string{"fence"}},
		"fence/httpfence":         {inside: []string{"fence", "fence/internal/wire"}},
		"fence/grpcfence":         {inside: []string{"fence", "fence/internal/wire"}, outside: []string{"google.golang.org/grpc", "google.golang.org/genproto", "google.golang.org/protobuf"}},

		"catalog/driver":     {inside: numbers},
		"catalog/memory":     {inside: belowDriver},
		"catalog/sqlite":     {inside: append([]string{"internal/errno", "internal/ownfile"}, belowDriver...), outside: []string{"modernc.org/sqlite", "github.com/fsnotify/fsnotify", "golang.org/x/sys"}},
		"catalog/postgres":   {inside: network, outside: []string{"github.com/jackc/pgx/v5", "github.com/jackc/puddle/v2"}},
		"catalog/etcd":       {inside: network, outside: []string{"go.etcd.io/etcd", "go.uber.org/zap", "google.golang.org/grpc"}},
		"catalog":            {inside: append([]string{"internal/closing", "internal/pace"}, belowDriver...), outside: []string{"github.com/cenkalti/backoff/v5", "github.com/tidwall/btree"}},
		"catalog/drivertest": {inside: belowCatalog, outside: []string{"github.com/stretchr/testify"}},

		"leader":                       {inside: append([]string{"internal/clock", "internal/closing", "internal/identity", "internal/loopback", "internal/pace", "internal/spool", "internal/stacks", "leader/internal/election", "leader/internal/peer", "leader/internal/admin"}, belowCatalog...), outside: []string{"github.com/cenkalti/backoff/v5"}},
		"leader/internal/election":     {inside: []string{"catalog/driver", "fence", "generation"}},
		"leader/internal/peer":         {inside: []string{"catalog/driver", "generation"}},
		"leader/internal/admin":        {inside: []string{"generation", "internal/loopback"}},
		"leader/internal/election/sim": {inside: []string{"leader/internal/election", "catalog/memory", "catalog/driver", "fence", "generation"}},

		"work/worktest":  {inside: append([]string{"work"}, belowCatalog...)},
		"work":           {inside: belowCatalog, outside: []string{"github.com/tidwall/btree"}},
		"reap":           {inside: []string{"fence", "generation", "exitcodes", "internal/ownfile", "internal/clock"}},
		"reap/leftovers": {inside: append([]string{"reap"}, belowLeader...)},
		"work/pgwork":    {inside: []string{"work", "generation", "catalog/driver"}, outside: []string{"github.com/jackc/pgx/v5"}},

		"internal/gather":       {},
		"internal/reapsim":      {inside: []string{"reap", "fence"}},
		"internal/loopback":     {},
		"internal/clock":        {outside: []string{"golang.org/x/sys"}},
		"internal/identity":     {outside: []string{"golang.org/x/sys"}},
		"internal/step":         {},
		"internal/errno":        {inside: append([]string{"catalog/driver"}, numbers...), outside: []string{"golang.org/x/sys"}},
		"internal/neterr":       {inside: append([]string{"catalog/driver", "internal/errno"}, numbers...)},
		"internal/house":        {},
		"internal/orders":       {},
		"internal/ownfile":      {outside: []string{"golang.org/x/sys"}},
		"internal/spool":        {},
		"internal/storeurl":     {inside: append([]string{"catalog/sqlite", "catalog/postgres", "catalog/etcd"}, belowDriver...)},
		"internal/errordoc":     {inside: []string{"internal/storeurl", "catalog/driver", "exitcodes"}},
		"internal/errordoc/gen": {inside: []string{"internal/errordoc"}},
		"internal/process":      {inside: []string{"exitcodes", "internal/identity", "internal/spool"}, outside: []string{"golang.org/x/sys"}},
		"internal/entrypoint":   {inside: []string{"exitcodes", "internal/process", "internal/identity", "internal/spool", "internal/loopback"}, outside: []string{"github.com/cenkalti/backoff/v5"}},
		"internal/lead":         {inside: append([]string{"internal/process", "internal/clock", "internal/spool"}, belowLeader...)},
		"internal/cli":          {inside: append([]string{"work", "work/pgwork", "reap", "reap/leftovers", "internal/entrypoint", "internal/lead", "internal/process", "internal/spool"}, program...), outside: []string{"github.com/spf13/cobra"}},
		"internal/pace":         {},
		"internal/closing":      {},
		"internal/stacks":       {},
		"internal/crashtest":    {inside: append([]string{"catalog"}, belowDriver...), outside: []string{"github.com/stretchr/testify"}},
		"internal/testpg": {
			inside:  []string{"catalog/driver", "internal/teststop"},
			outside: []string{"github.com/jackc/pgx/v5", "github.com/stretchr/testify"},
		},
		"internal/testcert":  {outside: []string{"github.com/stretchr/testify"}},
		"internal/testlists": {inside: append([]string{"catalog/driver"}, numbers...), outside: []string{"github.com/stretchr/testify"}},
		"internal/teststop":  {outside: []string{"github.com/stretchr/testify"}},
		"internal/testpipe":  {outside: []string{"github.com/stretchr/testify"}},
		"internal/testetcd":  {inside: []string{"internal/teststop"}, outside: []string{"go.etcd.io/etcd", "go.uber.org/zap", "github.com/stretchr/testify"}},

		"cmd/fencepost":            {inside: []string{"internal/cli", "exitcodes"}},
		"examples/kvserver":        {inside: append([]string{"examples/kvserver/app"}, program...)},
		"examples/kvserver/app":    {inside: append([]string{"examples/kvserver/kv", "internal/spool"}, program...), outside: []string{"github.com/tidwall/redcon"}},
		"examples/kvserver/kv":     {inside: append([]string{"internal/pace"}, belowLeader...), outside: []string{"github.com/tidwall/redcon"}},
		"examples/bluegreen":       {inside: []string{"examples/bluegreen/demo"}},
		"examples/bluegreen/demo":  {inside: program},
		"examples/guarded":         {inside: []string{"examples/guarded/demo"}},
		"examples/guarded/demo":    {inside: append([]string{"catalog/postgres", "examples/guarded/process"}, belowLeader...), outside: []string{"github.com/jackc/pgx/v5"}},
		"examples/guarded/process": {inside: belowLeader, outside: []string{"github.com/jackc/pgx/v5"}},
		"examples/generations":     {inside: []string{"examples/generations/demo"}},
		"examples/generations/demo": {
			inside:  append([]string{"catalog/postgres", "examples/guarded/process", "reap"}, belowLeader...),
			outside: []string{"github.com/jackc/pgx/v5"},
		},
		"examples/twostores": {inside: []string{"examples/twostores/demo"}},
		"examples/twostores/demo": {
			inside:  append([]string{"catalog/postgres", "catalog/sqlite", "catalog/etcd", "examples/guarded/process"}, belowLeader...),
			outside: []string{"github.com/jackc/pgx/v5"},
		},
		"examples/indexer":          {inside: []string{"examples/indexer/app", "examples/indexer/demo"}},
		"examples/indexer/gitindex": {inside: numbers},
		"examples/indexer/registry": {inside: append([]string{"work", "examples/indexer/gitindex"}, belowCatalog...)},
		"examples/indexer/app":      {inside: append([]string{"internal/spool", "work", "examples/indexer/gitindex", "examples/indexer/registry"}, program...)},
		"examples/indexer/demo":     {inside: append([]string{"work", "examples/indexer/app", "examples/indexer/gitindex", "examples/indexer/registry"}, program...)},
	}
}

// forTests are the modules that tests may import beside those that some code
// of ours does.
func forTests() []string {
	return []string{
		"github.com/stretchr/testify", "github.com/rogpeppe/go-internal", "github.com/hashicorp/go-multierror",
		"github.com/redis/go-redis/v9", "go.uber.org/goleak",
	}
}

// A listed is a package as the Go tool sees it.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestEveryPackageImportsOnlyWhatItsRoomAllows(t *testing.T) {
	t.Parallel()
	rooms := rooms()
	for _, p := range packages(t) {
		name := short(p.ImportPath)
		r, ok := rooms[name]
		if !ok {
			t.Errorf("%s has no room: say in the table what it may import", name)
			continue
		}
		for _, path := range p.Imports {
			if !r.allows(path) {
				t.Errorf("%s must not import %s", name, path)
			}
		}
	}
}

func TestTestsImportNoModuleThatIsNotNamedHere(t *testing.T) {
	t.Parallel()
	allowed := room{outside: forTests()}
	for _, r := range rooms() {
		allowed.outside = append(allowed.outside, r.outside...)
	}
	for _, p := range packages(t) {
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if !ours(path) && !allowed.allows(path) {
				t.Errorf("a test of %s must not import %s", short(p.ImportPath), path)
			}
		}
	}
}

func TestNoLineOfTheTableAllowsAPackageItself(t *testing.T) {
	t.Parallel()
	for name, r := range rooms() {
		require.NotContains(t, r.inside, name)
	}
}

func TestWhoUsesOneStoreLinksNoOtherStoresClient(t *testing.T) {
	t.Parallel()
	clients := map[string][]string{
		"catalog/sqlite":   {"modernc.org/sqlite"},
		"catalog/postgres": {"github.com/jackc/pgx/v5"},
		"catalog/etcd":     {"go.etcd.io/etcd", "google.golang.org/grpc"},
	}
	users := []string{"catalog", "catalog/driver", "catalog/memory", "leader", "reap", "exitcodes", "fence", "fence/httpfence"}
	for store := range clients {
		users = append(users, store)
	}
	for _, user := range users {
		linked := dependencies(t, user)
		for store, modules := range clients {
			for _, m := range modules {
				if store == user {
					require.True(t, slices.ContainsFunc(linked, in(m)), "%s does not link its own client %s", user, m)
				} else {
					require.False(t, slices.ContainsFunc(linked, in(m)), "%s links %s", user, m)
				}
			}
		}
	}
}

func TestTheLibraryLinksNothingThatIsForTestsOrPrograms(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"catalog", "catalog/sqlite", "catalog/postgres", "catalog/etcd", "leader", "reap", "fence", "fence/httpfence", "fence/grpcfence", "exitcodes"} {
		for _, path := range dependencies(t, user) {
			for _, m := range append(forTests(), "github.com/spf13/cobra", "testing", module+"/internal/cli", module+"/internal/storeurl") {
				require.False(t, in(m)(path), "%s links %s", user, path)
			}
		}
	}
}

func (r room) allows(path string) bool {
	if ours(path) {
		return slices.Contains(r.inside, short(path))
	}
	host, _, _ := strings.Cut(path, "/")
	return !strings.Contains(host, ".") || slices.ContainsFunc(r.outside, func(m string) bool { return in(m)(path) })
}

func ours(path string) bool { return in(module)(path) }

func short(path string) string { return strings.TrimPrefix(path, module+"/") }

// in returns whether a package is m or lies beneath it.
func in(m string) func(path string) bool {
	return func(path string) bool { return path == m || strings.HasPrefix(path, m+"/") }
}

// packages lists the packages of the module.
func packages(t *testing.T) []listed {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(goTool(t, "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")))
	var all []listed
	for {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// dependencies lists all packages that a program links which imports name.
func dependencies(t *testing.T, name string) []string {
	t.Helper()
	return strings.Fields(string(goTool(t, "list", "-deps", "./"+name)))
}

// goTool runs the Go tool in the root of the module.
func goTool(t *testing.T, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	root, err := root()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stderr = root, &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return out
}

// root returns the folder of the module.
func root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
}
