package cli

import (
	"context"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// Others are further catalogs of a store, which a mistyped name may have meant.
type others struct {
	Catalogs []string `json:"catalogs"` // as --store names them, without secrets
	More     bool     `json:"more"`     // than these
	Problem  string   `json:"problem"`  // why they are not known; empty if they are
}

// othersOf asks for the other catalogs of a store; nil if its driver can't tell.
func othersOf(ctx context.Context, store driver.Store) *others {
	lister, ok := driver.As[driver.Lister](store)
	if !ok {
		return nil
	}
	o := &others{Catalogs: []string{}}
	names, more, err := lister.OtherCatalogs(ctx)
	if err != nil {
		o.Problem = exitcodes.OneLine(err.Error())
		return o
	}
	o.Catalogs, o.More = append(o.Catalogs, names...), more
	return o
}

// rows lays the others out for people.
func (o *others) rows() (rows [][]string) {
	switch {
	case o == nil:
		return nil
	case o.Problem != "":
		return [][]string{{"other catalogs", "not known: " + cell(o.Problem)}}
	case len(o.Catalogs) == 0:
		return nil
	}
	for i, name := range o.Catalogs {
		title := ""
		if i == 0 {
			title = "other catalogs"
		}
		rows = append(rows, []string{title, cell(name)})
	}
	if o.More {
		rows = append(rows, []string{"", "and more"})
	}
	return append(rows, []string{"", "→ see that the name is spelled as it was meant"})
}

// text names the others in one line, behind what was found of this catalog.
func (o *others) text() string {
	if o == nil || len(o.Catalogs) == 0 {
		return ""
	}
	text := "; other catalogs of the same store: " + strings.Join(o.Catalogs, ", ")
	if o.More {
		text += " and more"
	}
	return cell(text)
}
