package network

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// dot writes the graph in Graphviz's language: networks are boxes, containers
// ellipses, an edge has the address, and what is published hangs on the host.
func dot(graph []graphNetwork) string {
	var b strings.Builder
	b.WriteString("graph kist {\n\trankdir=LR;\n\tnode [fontname=\"sans-serif\"];\n")
	drawn := map[string]bool{}
	for _, g := range graph {
		network := "network " + g.Name
		fmt.Fprintf(&b, "\t%q [label=%q, shape=box];\n", network, strings.Join(append([]string{g.Name}, g.facts()...), "\n"))
		for _, c := range g.Containers {
			if !drawn[c.ID] {
				drawn[c.ID] = true
				fmt.Fprintf(&b, "\t%q [label=%q];\n", c.ID, c.Name)
				for _, p := range c.Ports {
					fmt.Fprintf(&b, "\thost -- %q [label=%q, style=dashed];\n", c.ID, p)
				}
			}
			fmt.Fprintf(&b, "\t%q -- %q [label=%q];\n", network, c.ID, strings.Join(c.Addresses, "\n"))
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// Sizes of the picture, in pixels.
const (
	boxWidth    = 260
	lineHeight  = 18
	boxPadding  = 10
	boxGap      = 16
	columnGap   = 220 // room for an address on an edge
	pictureEdge = 20
)

// A box is a network at the left or a container at the right.
type box struct {
	class     string
	lines     []string
	top, left int
}

func (b *box) height() int { return 2*boxPadding + lineHeight*len(b.lines) }
func (b *box) middle() int { return b.top + b.height()/2 }

// svg draws the graph as a picture that needs nothing else: two columns of boxes,
// a line with the address from each network to each container in it.
func svg(graph []graphNetwork) string {
	var networks, containers []*box
	index := map[string]*box{}
	for _, g := range graph {
		networks = append(networks, &box{class: "network", lines: append([]string{g.Name}, g.facts()...), left: pictureEdge})
		for _, c := range g.Containers {
			if index[c.ID] == nil {
				index[c.ID] = &box{class: "container", lines: append([]string{c.Name}, c.Ports...), left: pictureEdge + boxWidth + columnGap}
				containers = append(containers, index[c.ID])
			}
		}
	}
	height := max(stack(networks), stack(containers)) + pictureEdge
	width := 2*pictureEdge + 2*boxWidth + columnGap
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, height, width, height)
	b.WriteString("<style>rect{rx:6;stroke:#456}.network{fill:#dbe9f6}.container{fill:#eef6e4}line{stroke:#89a}.name{font-weight:bold}.address{fill:#345;font-size:11px;text-anchor:end}</style>\n")
	for i, g := range graph {
		for _, c := range g.Containers {
			b.WriteString(edge(networks[i], index[c.ID], strings.Join(c.Addresses, " ")))
		}
	}
	for _, x := range slices.Concat(networks, containers) {
		b.WriteString(x.draw())
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// stack puts boxes below each other and returns where they end.
func stack(boxes []*box) int {
	at := pictureEdge
	for _, b := range boxes {
		b.top = at
		at += b.height() + boxGap
	}
	return at
}

func (b *box) draw() string {
	var s strings.Builder
	fmt.Fprintf(&s, `<rect class="%s" x="%d" y="%d" width="%d" height="%d"/>`+"\n", b.class, b.left, b.top, boxWidth, b.height())
	for i, line := range b.lines {
		class := ""
		if i == 0 {
			class = ` class="name"`
		}
		fmt.Fprintf(&s, `<text%s x="%d" y="%d">%s</text>`+"\n", class, b.left+boxPadding, b.top+boxPadding+lineHeight*(i+1)-5, html.EscapeString(line))
	}
	return s.String()
}

// edge is a line with its label near the container, where lines do not cross.
func edge(from, to *box, label string) string {
	return fmt.Sprintf(`<line x1="%d" y1="%d" x2="%d" y2="%d"/><text class="address" x="%d" y="%d">%s</text>`+"\n",
		from.left+boxWidth, from.middle(), to.left, to.middle(), to.left-8, (7*to.middle()+from.middle())/8-4, html.EscapeString(label))
}
