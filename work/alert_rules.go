package work

import (
	"fmt"
	"strings"
	"time"
)

// kind adds the alerts of one kind.
func (c *checking) kind(k KindStatus) {
	name := k.Name
	stale := c.th.Stale.of(name, k.Stale, defaultStale)
	show := func(i *Info) string {
		if i == nil {
			return ""
		}
		return fmt.Sprintf("fencepost work show %d", i.ID)
	}

	late := firstDue(k.Urgent[Waiting], k.Urgent[Backoff])
	c.lasts("work/stale/"+name, due(late), stale,
		fmt.Sprintf("%s of kind %s was due %s ago and does not run: %s", describe(late), name, c.ago(due(late)), state(late)),
		show(late), within("waits", name, stale))

	slow := c.th.Slow.of(name, k.Slow, never)
	longest := k.Urgent[Running]
	c.lasts("work/slow/"+name, began(longest), slow,
		fmt.Sprintf("%s of kind %s has run for %s", describe(longest), name, c.ago(began(longest))),
		show(longest), within("runs", name, slow))

	blocked, behind := k.Urgent[Blocked], c.behind(name, k.Urgent[Blocked])
	limit := c.th.Blocked.of(name, stale, defaultStale)
	c.lasts("work/blocked/"+name, due(blocked), limit,
		fmt.Sprintf("%s of kind %s was due %s ago and waits behind %s", describe(blocked), name, c.ago(due(blocked)), behind),
		show(blocked), within("is blocked", name, limit))

	unknown := k.Urgent[Unknown]
	c.lasts("work/unknown/"+name, due(unknown), c.th.Unknown,
		fmt.Sprintf("%d jobs wait for a holder that runs kind %s: %s was due %s ago", k.States[Unknown], name, describe(unknown), c.ago(due(unknown))),
		"run a release that knows the kind, or fencepost work abandon", fmt.Sprintf("no job waits for a holder that runs kind %s", name))

	stranded := k.Urgent[Stranded]
	c.lasts("work/stranded/"+name, due(stranded), c.th.Stranded,
		fmt.Sprintf("%d jobs of kind %s are pinned to an owner that does not hold the token: %s, to %s", k.States[Stranded], name, describe(stranded), owner(stranded)),
		"fencepost work reassign, or abandon", fmt.Sprintf("no job of kind %s is stranded", name))

	c.orphans(k, stale)
	c.counts("work/dead/"+name, k.UrgentDead, c.th.Dead, k.DeadSince,
		fmt.Sprintf("%d jobs of kind %s are on the dead list", k.UrgentDead, name),
		"fencepost work list --state dead --kind "+quoted(name)+", then retry or clear each", fmt.Sprintf("no job of kind %s is dead", name))
}

// orphans adds the alert about jobs whose holder ended and which nobody takes. Either
// no Queue runs under the newest token, or it has no room for them, or its process is
// silent and so does not run what it has claimed.
func (c *checking) orphans(k KindStatus, stale time.Duration) {
	key, orphan := "work/orphans/"+k.Name, k.Urgent[Orphan]
	none := fmt.Sprintf("no job of kind %s was left by a holder that ended", k.Name)
	if seen, silent := c.silent(); silent && k.Urgent[Running] != nil {
		running := k.Urgent[Running]
		c.lasts(key, seen, c.th.Silent,
			fmt.Sprintf("%d jobs of kind %s were claimed under %v, whose holder is silent for %s: %s", k.States[Running], k.Name, c.Token, c.ago(seen), describe(running)),
			holderRemedy, none)
		return
	}
	if orphan == nil {
		c.lasts(key, time.Time{}, c.th.Orphans, "", "", none)
		return
	}
	from, limit, why := c.Holder.Since, c.th.Orphans, "no Queue runs under it"
	if c.Attended() {
		from, limit, why = c.Takeovers[0].At, stale, "its Queue has no room"
	}
	if from.IsZero() {
		from = orphan.Due
	}
	c.lasts(key, from, limit,
		fmt.Sprintf("%d jobs of kind %s ran when their holder ended, and nobody takes them under %v, since %s: %s", k.States[Orphan], k.Name, c.Token, why, describe(orphan)),
		holderRemedy, none)
}

const holderRemedy = "fencepost status says who holds the token; start a process that runs the work"

// holder adds the alert about jobs that no holder runs.
func (c *checking) holder() {
	waits := false
	for _, k := range c.Kinds {
		waits = waits || len(k.Urgent) > 0
	}
	const key, fine = "work/holder", "a holder runs the work, or there is none to do"
	switch seen, silent := c.silent(); {
	case waits && silent:
		c.lasts(key, seen, c.th.Silent, fmt.Sprintf("%s has given no sign of life for %s, and %d jobs are not done", c.holderName(), c.ago(seen), c.Live), holderRemedy, fine)
	case waits && !c.Attended():
		from := c.Holder.Since
		if from.IsZero() {
			from = c.firstDue()
		}
		c.lasts(key, from, c.th.Silent, fmt.Sprintf("%s runs no Queue, and %d jobs are not done", c.holderName(), c.Live), holderRemedy, fine)
	default:
		c.lasts(key, time.Time{}, c.th.Silent, "", "", fine)
	}
}

func (c *checking) holderName() string {
	if c.Token.IsZero() {
		return "nobody holds a token, which"
	}
	return fmt.Sprintf("the holder of %v (%q)", c.Token, clip(c.Holder.Name, shownKey))
}

func (c *checking) firstDue() (first time.Time) {
	for _, k := range c.Kinds {
		for _, i := range k.Urgent {
			if first.IsZero() || i.Due.Before(first) {
				first = i.Due
			}
		}
	}
	return first
}

func (c *checking) inbox() {
	from := c.out.Oldest
	if c.out.Requests == 0 {
		from = time.Time{}
	}
	c.lasts("work/inbox", from, c.th.Inbox,
		fmt.Sprintf("%d requests wait in the inbox, the oldest for %s: no holder takes them, or their kinds are full", c.out.Requests, c.ago(from)),
		holderRemedy, "no request waits in the inbox for long")
}

func (c *checking) broken() {
	n, first := c.out.Unread, "a request in the inbox"
	for _, m := range c.Unreadable {
		n += m
	}
	if len(c.Broken) > 0 {
		first = clip(c.Broken[0], shownError)
	}
	c.counts("work/broken", n, 0, time.Time{},
		fmt.Sprintf("%d entries can't be read: %q", n, first),
		"fencepost work status lists or counts them; a newer release may read them, fencepost work abandon gives a job up, and a request without a valid reference is to be removed from the store by hand", "every entry can be read")
}

func (c *checking) sums() {
	err := c.Sums()
	n, text := 0, ""
	if err != nil {
		n, text = 1, clip(err.Error(), shownError)
	}
	c.counts("work/sums", n, 0, time.Time{}, fmt.Sprintf("the status contradicts itself: %q", text),
		"fencepost work status --json and fencepost dump belong into a report of a defect", "the figures of the status add up")
}

// behind says for what a blocked job waits.
func (c *checking) behind(kind string, i *Info) string {
	for _, b := range c.Blocked {
		if i != nil && b.Kind == kind && b.Key == i.Key {
			text := fmt.Sprintf("job %d (%s, attempt %d)", b.Behind, b.State, b.Attempt)
			if b.Error != "" {
				text += fmt.Sprintf(", %q", clip(b.Error, shownError))
			}
			return text
		}
	}
	return "another job of its key"
}

func (c *checking) ago(t time.Time) string { return seconds(c.At.Sub(t)) }

// quoted is a name as one word of a shell.
func quoted(name string) string { return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'" }

func firstDue(a, b *Info) *Info {
	if a == nil || b != nil && dueBefore(b, a) < 0 {
		return b
	}
	return a
}

func due(i *Info) time.Time {
	if i == nil {
		return time.Time{}
	}
	return i.Due
}

func began(i *Info) time.Time {
	if i == nil {
		return time.Time{}
	}
	return i.At
}

func state(i *Info) State {
	if i == nil {
		return ""
	}
	return i.State
}

func owner(i *Info) string {
	if i == nil {
		return ""
	}
	return clip(i.Owner, shownKey)
}

// within says that nothing exceeds a limit.
func within(does, kind string, limit time.Duration) string {
	if limit < 0 {
		return fmt.Sprintf("kind %s has no limit", kind)
	}
	return fmt.Sprintf("no job of kind %s %s longer than %s", kind, does, limit)
}
