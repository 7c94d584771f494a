package image

import (
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// TreeCmd is `kist image tree`.
type TreeCmd struct {
	Whatrequires bool   `help:"Show the images that contain all layers of this one."`
	Image        string `arg:"" optional:"" help:"Name or ID; all images without it."`
}

// A node is a layer in the tree of all layers, and the images that end there.
type node struct {
	layer    Layer
	size     int64
	tags     []string
	ids      []string
	children []*node
	images   int
}

// Run prints the layers, each once, under the layer that it lies on.
func (c *TreeCmd) Run(s *Store, out *ui.Output) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	var only *Image
	if c.Image != "" {
		if only, err = s.Resolve(c.Image); err != nil {
			return err
		}
	}
	root := &node{}
	for _, sum := range list {
		if sum.Index || only != nil && !c.Whatrequires && sum.ID != only.ID {
			continue
		}
		img, err := s.Resolve(sum.ID)
		if err != nil {
			return err
		}
		if only != nil && !startsWith(img.Layers, only.Layers) {
			continue
		}
		s.plant(root, img)
	}
	for i, n := range root.children {
		printNode(out, n, "", i == len(root.children)-1)
	}
	return nil
}

func startsWith(layers, prefix []Layer) bool {
	return len(layers) >= len(prefix) && (len(prefix) == 0 || layers[len(prefix)-1].ChainID == prefix[len(prefix)-1].ChainID)
}

// plant adds the layers of img below n.
func (s *Store) plant(n *node, img *Image) {
	for _, l := range img.Layers {
		var next *node
		for _, child := range n.children {
			if child.layer.ChainID == l.ChainID {
				next = child
			}
		}
		if next == nil {
			rec, _ := s.layerRecord(l.ChainID)
			next = &node{layer: l, size: rec.Size}
			n.children = append(n.children, next)
		}
		next.images++
		n = next
	}
	n.tags = append(n.tags, img.Names...)
	n.ids = append(n.ids, short(img.ID))
}

func printNode(out *ui.Output, n *node, indent string, last bool) {
	branch, below := "├── ", "│   "
	if last {
		branch, below = "└── ", "    "
	}
	line := indent + branch + short(n.layer.DiffID) + "  " + ui.Size(n.size)
	if n.images > 1 {
		line += "  shared by " + itoa(int64(n.images))
	}
	if len(n.ids) > 0 {
		line += "  " + strings.Join(n.ids, " ")
	}
	if len(n.tags) > 0 {
		line += " [" + strings.Join(n.tags, ", ") + "]"
	}
	out.Print(ui.Escape(line))
	for i, child := range n.children {
		printNode(out, child, indent+below, i == len(n.children)-1)
	}
}
