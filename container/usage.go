package container

import "time"

// Counts are how many containers there are in which state.
type Counts struct{ All, Running, Paused, Stopped int }

// Counts asks the state of every container.
func (e *Engine) Counts() (n Counts, err error) {
	list, err := e.all()
	for _, c := range list {
		n.All++
		switch st := e.Status(c.ID); {
		case st.Word == StatusPaused:
			n.Paused++
		case st.Busy():
			n.Running++
		default:
			n.Stopped++
		}
	}
	return n, err
}

// Usage is what a container takes on disk beside its image, and who it is.
type Usage struct {
	ID, Image, ImageID, Names, Status, Command string
	Created                                    time.Time
	Size                                       int64 // bytes
	Volumes                                    int
	Busy                                       bool
}

// Usage measures the writable layers of all containers.
func (e *Engine) Usage() ([]Usage, error) {
	list, err := e.list(nil, true)
	if err != nil {
		return nil, err
	}
	var all []Usage
	for _, l := range list {
		row := e.row(l, time.Now(), false, false)
		u := Usage{ID: l.ID, Image: l.Image, ImageID: l.ImageID, Names: l.Name, Status: row.Status, Command: row.Command,
			Created: l.Created, Size: treeSize(e.dataDir(l.ID, upperDir)), Busy: l.Busy()}
		for _, m := range l.Mounts {
			if m.Type == "volume" {
				u.Volumes++
			}
		}
		all = append(all, u)
	}
	return all, nil
}
