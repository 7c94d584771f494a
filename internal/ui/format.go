package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"
)

// A Table is a listing as docker prints it: rows through a template, in columns
// under headers or each on its own.
type Table struct {
	// Headers maps a row's field to its column's header: "ID" to "CONTAINER ID".
	Headers map[string]string
	// Default is the template for "" and "table": "{{.ID}}\t{{.Image}}".
	Default string
	// Quiet is the template that stands for the rows under -q: "{{.ID}}".
	Quiet string
	// NoHeading leaves out the headers.
	NoHeading bool
}

// Write prints rows by docker's rules for --format: "" and "table" are the
// default columns, "table TEMPLATE" other columns, "json" one JSON object a
// line, anything else a template a line. Rows are structs or maps.
func (t Table) Write(w io.Writer, format string, quiet bool, rows []any) error {
	var b bytes.Buffer
	if err := t.render(&b, format, quiet, rows); err != nil {
		return err
	}
	return show(w, b.Bytes())
}

// show writes b, which programs get as it is; a terminal gets no orders by it.
func show(w io.Writer, b []byte) error {
	if f, ok := w.(*os.File); ok && IsTerminal(f) {
		b = []byte(visible(string(b)))
	}
	_, err := w.Write(b)
	return err
}

func (t Table) render(b *bytes.Buffer, format string, quiet bool, rows []any) error {
	text, columns := strings.CutPrefix(format, "table")
	switch {
	case format == "json" || strings.TrimSpace(format) == "{{json .}}":
		return writeJSONLines(b, rows)
	case quiet && (format == "" || columns):
		text, columns = t.Quiet, false
	case format == "" || columns && strings.TrimSpace(text) == "":
		text, columns = t.Default, true
	}
	tmpl, err := parseTemplate(strings.TrimSpace(text))
	if err != nil {
		return err
	}
	if !columns {
		return eachRow(b, tmpl, rows, func(line string) string { return line })
	}
	tab := tabwriter.NewWriter(b, 10, 1, 3, ' ', 0)
	if !t.NoHeading {
		if err := headerTemplate(tmpl).Execute(tab, t.Headers); err != nil {
			return templateError(err)
		}
		fmt.Fprintln(tab)
	}
	if err := eachRow(tab, tmpl, rows, visible); err != nil {
		return err
	}
	return tab.Flush()
}

func eachRow(w io.Writer, tmpl *template.Template, rows []any, form func(line string) string) error {
	var line bytes.Buffer
	for _, row := range rows {
		line.Reset()
		if err := tmpl.Execute(&line, row); err != nil {
			return templateError(err)
		}
		line.WriteByte('\n')
		if _, err := io.WriteString(w, form(line.String())); err != nil {
			return err
		}
	}
	return nil
}

func writeJSONLines(b *bytes.Buffer, rows []any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	for _, row := range rows {
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

// headerTemplate makes every function give back its last argument's text, so
// that "{{upper .ID}}" in a table still has the header of ID, as docker does.
func headerTemplate(t *template.Template) *template.Template {
	last := func(args ...any) any {
		if len(args) == 0 {
			return ""
		}
		return args[len(args)-1]
	}
	first := func(args ...any) any {
		if len(args) == 0 {
			return ""
		}
		return args[0]
	}
	h, err := t.Clone()
	if err != nil {
		return t
	}
	return h.Funcs(template.FuncMap{
		"json": last, "lower": last, "upper": last, "title": last,
		"split": first, "join": first, "pad": first, "truncate": first, "println": last,
	}).Option("missingkey=zero")
}

func parseTemplate(text string) (*template.Template, error) {
	// docker: \t and \n typed in a shell's single quotes mean tab and newline.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("--format").Funcs(Funcs()).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

func templateError(err error) error {
	text := strings.TrimPrefix(err.Error(), "template: ")
	return fmt.Errorf("--format: %s", strings.TrimPrefix(text, "--format:"))
}

// Funcs are the functions of docker's templates.
func Funcs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			err := enc.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
		"println":  fmt.Sprintln,
	}
}

func title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}

// Ellipsis shortens s to n characters, the last of them "…", as docker does.
func Ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// Inspect prints objects as `inspect` does: an indented JSON array, or, with a
// format, each through the template ("json": one compact line each). A template
// may name a field by its Go or by its JSON name.
func Inspect(w io.Writer, format string, objects []any) error {
	if format == "" {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "    ")
		if objects == nil {
			objects = []any{}
		}
		if err := enc.Encode(objects); err != nil {
			return err
		}
		return show(w, b.Bytes())
	}
	var b bytes.Buffer
	if format == "json" {
		if err := writeJSONLines(&b, objects); err != nil {
			return err
		}
	} else if err := inspectTemplate(&b, format, objects); err != nil {
		return err
	}
	return show(w, b.Bytes())
}

func inspectTemplate(b *bytes.Buffer, format string, objects []any) error {
	tmpl, err := parseTemplate(format)
	if err != nil {
		return err
	}
	for _, o := range objects {
		mark := b.Len()
		if err := tmpl.Execute(b, o); err != nil {
			b.Truncate(mark)
			generic, jsonErr := asMap(o)
			if jsonErr != nil {
				return templateError(err)
			}
			if err := tmpl.Option("missingkey=error").Execute(b, generic); err != nil {
				return templateError(err)
			}
		}
		b.WriteByte('\n')
	}
	return nil
}

// asMap is o as its JSON reads, so that templates may use the JSON's names.
func asMap(o any) (v any, err error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}
