package container

import (
	"fmt"
	"regexp"
	"strings"
	"text/template"

	"github.com/kist-containers/kist/container/monitor"
)

// logConfig completes --log-driver and --log-opt by what is known of the
// container.
func (c *Config) logConfig(e *Engine) monitor.LogConfig {
	l := c.Log
	if l.Path == "" && l.Driver != "none" {
		l.Path = e.dataDir(c.ID, c.ID+"-json.log")
	}
	l.ID, l.Name, l.Image = c.ID, c.Name, c.Image
	l.Attrs = c.logAttrs()
	if tag, err := c.logTag(); err == nil {
		l.Tag = tag
	}
	if _, given := l.Options["tag"]; given {
		if l.Attrs == nil {
			l.Attrs = map[string]string{}
		}
		l.Attrs["tag"] = l.Tag
	}
	return l
}

// checkLog refuses log options that cannot be used.
func (c *Config) checkLog() error {
	if err := monitor.CheckLog(c.Log); err != nil {
		return err
	}
	for _, key := range []string{"labels-regex", "env-regex"} {
		if _, err := regexp.Compile(c.Log.Options[key]); err != nil {
			return fmt.Errorf("--log-opt %s: %w", key, err)
		}
	}
	if _, err := c.logTag(); err != nil {
		return fmt.Errorf("--log-opt tag: %w", err)
	}
	return nil
}

// logAttrs are the labels and variables that the options choose.
func (c *Config) logAttrs() map[string]string {
	o := c.Log.Options
	attrs := map[string]string{}
	choose := func(names, pattern, key, value string) {
		for _, n := range strings.Split(names, ",") {
			if n == key {
				attrs[key] = value
			}
		}
		if pattern == "" {
			return
		}
		if re, err := regexp.Compile(pattern); err == nil && re.MatchString(key) {
			attrs[key] = value
		}
	}
	if o["labels"]+o["labels-regex"] != "" {
		for k, v := range c.Labels {
			choose(o["labels"], o["labels-regex"], k, v)
		}
	}
	if o["env"]+o["env-regex"] != "" {
		for _, e := range c.Env {
			k, v, _ := strings.Cut(e, "=")
			choose(o["env"], o["env-regex"], k, v)
		}
	}
	if len(attrs) == 0 {
		return nil
	}
	return attrs
}

// logTag is docker's tag, a template; the short ID when none is given.
func (c *Config) logTag() (string, error) {
	text, given := c.Log.Options["tag"]
	if !given {
		return shortID(c.ID), nil
	}
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New("tag").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, map[string]string{
		"ID": shortID(c.ID), "FullID": c.ID, "Name": c.Name, "ImageID": shortID(strings.TrimPrefix(c.ImageID, "sha256:")),
		"ImageFullID": c.ImageID, "ImageName": c.Image, "DaemonName": "kist",
	})
	return b.String(), err
}
