package volume

import (
	"reflect"
	"testing"
)

func TestParseVolume(t *testing.T) {
	for s, want := range map[string]Mount{
		"/data":               {Type: TypeVolume, Target: "/data", Anonymous: true},
		":/data":              {Type: TypeVolume, Target: "/data", Anonymous: true},
		"db:/data/":           {Type: TypeVolume, Source: "db", Target: "/data"},
		"db:/data:ro,nocopy":  {Type: TypeVolume, Source: "db", Target: "/data", ReadOnly: true, NoCopy: true},
		"/h:/c":               {Type: TypeBind, Source: "/h", Target: "/c", CreateSource: true},
		"./html:/c:ro,rslave": {Type: TypeBind, Source: "/cwd/html", Target: "/c", ReadOnly: true, Propagation: "rslave", CreateSource: true},
		"..:/c:z":             {Type: TypeBind, Source: "/", Target: "/c", CreateSource: true},
	} {
		if got, err := ParseVolume(s, "/cwd"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseVolume(%q) = %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "a:b", "/a:/", "db:/x:bad", "a:/b:ro:rw", "x:/y:ro,rw", "x:/y:ro,ro", "a b:/c", "x:/y:shared"} {
		if got, err := ParseVolume(bad, "/cwd"); err == nil {
			t.Errorf("ParseVolume(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	for s, want := range map[string]Mount{
		"type=bind,source=a,target=/b,readonly":                      {Type: TypeBind, Source: "/cwd/a", Target: "/b", ReadOnly: true},
		"source=db,target=/b":                                        {Type: TypeVolume, Source: "db", Target: "/b"},
		"type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700":             {Type: TypeTmpfs, Target: "/t", Size: 1 << 20, Mode: 0o700},
		`type=volume,dst=/t,"volume-opt=o=a,b"`:                      {Type: TypeVolume, Target: "/t", Anonymous: true, DriverOpts: map[string]string{"o": "a,b"}},
		"type=bind,src=/a,dst=/b,ro=false,bind-propagation=rshared":  {Type: TypeBind, Source: "/a", Target: "/b", Propagation: "rshared"},
		"type=volume,src=db,dst=/b,volume-nocopy,volume-subpath=x/y": {Type: TypeVolume, Source: "db", Target: "/b", NoCopy: true, Subpath: "x/y"},
	} {
		if got, err := ParseMount(s, "/cwd"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseMount(%q) = %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "type=bind,target=/b", "type=x,target=/b", "target=b", "type=tmpfs,source=a,target=/b", "target=/b,nokey=1", "target=/b,ro=maybe", "type=bind,src=/a,dst=/b,bind-propagation=up"} {
		if got, err := ParseMount(bad, "/cwd"); err == nil {
			t.Errorf("ParseMount(%q) = %+v, want an error", bad, got)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("a:/b:ro")
	f.Add("type=bind,src=/a,dst=/b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string, string) (Mount, error){ParseVolume, ParseMount} {
			if m, err := parse(s, "/cwd"); err == nil && (m.Target == "" || m.Target[0] != '/' || m.Target == "/") {
				t.Errorf("%q gives target %q", s, m.Target)
			}
		}
		ParseTmpfs(s)
	})
}

func TestParseIDMap(t *testing.T) {
	m, err := ParseVolume("db:/d:idmap=uids=0-1000-10#20-2000-1;gids=0-100-10", "/")
	if err != nil || len(m.UIDs) != 2 || m.UIDs[1].ContainerID != 20 || m.UIDs[1].HostID != 2000 || m.GIDs[0].HostID != 100 || !m.IDMap {
		t.Errorf("%+v, %v", m, err)
	}
	m, err = ParseMount("type=bind,src=/a,dst=/d,idmap=uids=@0-1-10#5-5-1;gids=@0-2-10", "/")
	if err != nil || !m.UIDs[0].InContainer || m.UIDs[0].HostID != 1 || m.UIDs[1].InContainer || !m.GIDs[0].InContainer {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"uids=@;gids=@", "uids=@@0-0-1;gids=0-0-1", "uids=0-1", "uids=0-1-1", "uids=a-b-c;gids=0-0-1", "uids=0-0-0;gids=0-0-1", "uids=0-4294967295-2;gids=0-0-1", "x=0-0-1"} {
		if _, err := ParseVolume("db:/d:idmap="+bad, "/"); err == nil {
			t.Errorf("idmap=%s is taken", bad)
		}
	}
}
