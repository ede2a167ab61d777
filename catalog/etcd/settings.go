package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// off, as the value of hedge-after, sends no copy for want of an answer.
const off = "off"

// settings are the parameters of a store's URL, and what of c each sets.
func (c *Config) settings() map[string]*time.Duration {
	return map[string]*time.Duration{
		"lease": &c.Lease, "hedge-after": &c.HedgeAfter, "keepalive": &c.KeepAlive, "keepalive-timeout": &c.KeepAliveTimeout,
		"dial-timeout": &c.DialTimeout, "claim-ttl": &c.ClaimTTL,
	}
}

const settingNames = "lease, hedge-after, keepalive, keepalive-timeout, dial-timeout and claim-ttl"

// read sets what the parameters of a URL say. Its errors show no part of a
// parameter that is not known: it may be a secret.
func (c *Config) read(query string) (mistakes []error) {
	settings := c.settings()
	for word := range strings.SplitSeq(query, "&") {
		if word == "" {
			continue
		}
		name, text, _ := strings.Cut(word, "=")
		value, known := settings[name]
		if !known {
			mistakes = append(mistakes, errors.New("the URL has a parameter that is not known: want "+settingNames))
			continue
		}
		if name == "hedge-after" && text == off {
			*value = -1
			continue
		}
		text, err1 := url.QueryUnescape(text)
		d, err2 := time.ParseDuration(text)
		if err1 != nil || err2 != nil || d <= 0 {
			mistakes = append(mistakes, fmt.Errorf("%s is no time above 0, such as 500ms", name))
			continue
		}
		*value = d
	}
	return mistakes
}
