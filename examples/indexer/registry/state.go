package registry

import (
	"encoding/json"
	"strings"

	"github.com/fencepost/fencepost/catalog"
)

// Wanted returns what the index is to have for a package: a line of JSON for each
// version, in the order of their names; and which change is the package's newest.
func Wanted(s catalog.Source, name string) (content []byte, number uint64, err error) {
	p, _, err := packages.Get(s, name)
	if err != nil {
		return nil, 0, err
	}
	prefix := entry(name, "")
	var failed error
	err = versions.Scan(s, prefix, func(key string, v Version) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		var line []byte
		line, failed = json.Marshal(v)
		content = append(append(content, line...), '\n')
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return content, p.Changes, err
}

// All returns what the index is to have for each package.
func All(s catalog.Source) (map[string]string, error) {
	var names []string
	if err := packages.Scan(s, "", func(name string, _ packageRecord) bool { names = append(names, name); return true }); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, name := range names {
		content, _, err := Wanted(s, name)
		if err != nil {
			return nil, err
		}
		all[name] = string(content)
	}
	return all, nil
}

// Feed calls fn with each entry of the feed, until it returns false.
func Feed(s catalog.Source, fn func(Announced) bool) error {
	return feed.Scan(s, "", func(_ string, a Announced) bool { return fn(a) })
}

// Changes calls fn with the ID of each change that was accepted, until it returns
// false.
func Changes(s catalog.Source, fn func(id string) bool) error {
	return changes.Scan(s, "", func(id string, _ changeRecord) bool { return fn(id) })
}
