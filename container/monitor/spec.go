// Package monitor is the one process that outlives a command: the parent of a
// container's PID 1. It mounts the root file system in a mount namespace of its
// own, holds the terminal or the pipes, writes the log, serves attach clients,
// records the exit, and acts on restart policy and health checks.
package monitor

import (
	"os"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// Spec is all that a monitor is told about its container. The engine sends it
// over the connection that the monitor was started with; nothing of it is on a
// command line or in the environment.
type Spec struct {
	ID    string      `json:"id"`
	Name  string      `json:"name"`
	Roots state.Roots `json:"roots"`
	// Bundle is the directory of config.json and of the mount point rootfs.
	Bundle string `json:"bundle"`
	// RunDir is <runroot>/container/<id>: state.json, attach.sock.
	RunDir string `json:"runDir"`
	// DataDir is <root>/container/<id>: exit.json, the log.
	DataDir string `json:"dataDir"`
	// Runtime is the path of another OCI runtime, or "" for kist's own.
	Runtime  string `json:"runtime,omitempty"`
	Rootless bool   `json:"rootless,omitempty"`
	Systemd  bool   `json:"systemdCgroup,omitempty"`

	Terminal bool `json:"terminal,omitempty"`
	// OpenStdin keeps standard input open for attach clients; StdinOnce closes
	// it when the first of them ends.
	OpenStdin bool `json:"openStdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`

	Log LogConfig `json:"log"`
	// StopSignal is a name such as SIGTERM ("" for that one); StopTimeout is how
	// long it may take before SIGKILL.
	StopSignal  string        `json:"stopSignal,omitempty"`
	StopTimeout time.Duration `json:"stopTimeoutNs,omitempty"`
	Restart     RestartPolicy `json:"restart"`
	Health      *Health       `json:"health,omitempty"`
	// AutoRemove removes the container after its exit.
	AutoRemove bool `json:"autoRemove,omitempty"`
	// Sandbox says that network.Serve has work for this container.
	Sandbox bool `json:"sandbox,omitempty"`
	// Images are other images' file systems, mounted where only the monitor and
	// its container see them.
	Images []ImageMount `json:"images,omitempty"`
	// PidFile is where PID 1's number is written, "" for nowhere.
	PidFile string `json:"pidFile,omitempty"`
	// MonitorPidFile is where the monitor's number is written.
	MonitorPidFile string `json:"monitorPidFile,omitempty"`
	// Timeout ends each run with SIGKILL; 0 is none.
	Timeout time.Duration `json:"timeoutNs,omitempty"`
	Notify  Notify        `json:"notify,omitzero"`
	Secrets []SecretFile  `json:"secrets,omitempty"`
	// NoCgroup leaves the container in the monitor's cgroup.
	NoCgroup bool `json:"noCgroup,omitempty"`
	// Held leaves the first process waiting until Release.
	Held bool `json:"held,omitempty"`
}

// RootFS says what a container sees as its root file system; see Open.
type RootFS struct {
	// Lowers are the image's layers, top first, for overlay. Empty with Dir.
	Lowers []string
	// Upper and Work are the writable layer.
	Upper string
	Work  string
	// Dir is a plain directory used as it is (--rootfs DIR). For --rootfs DIR:O
	// the directory is the only one of Lowers.
	Dir string
	// UserXattr mounts overlay with userxattr, as in a user namespace.
	UserXattr bool
	// Volatile writes nothing back to the disk on its own: what is in Upper goes
	// with the mount. See overlay's documentation; Linux 5.10.
	Volatile bool
	// Map is a user namespace by whose mapping owners are translated, or nil.
	Map *os.File
}

// An ImageMount is an image that a container has mounted beside its own, or what
// is below a directory.
type ImageMount struct {
	// Lowers are its layers, top first; Upper and Work take what is written, ""
	// for a read-only one.
	Lowers []string `json:"lowers"`
	Upper  string   `json:"upper,omitempty"`
	Work   string   `json:"work,omitempty"`
	// Inside is the path below the only one of Lowers that is meant, "" for all of
	// it. No link leads out of there.
	Inside string `json:"inside,omitempty"`
	// At is an existing directory, or file, of the container's own.
	At string `json:"at"`
}

// RootFS is what to mount.
func (i ImageMount) RootFS(rootless bool) RootFS {
	if len(i.Lowers) == 1 && i.Upper == "" {
		return RootFS{Dir: i.Lowers[0]} // overlay wants two
	}
	return RootFS{Lowers: i.Lowers, Upper: i.Upper, Work: i.Work, UserXattr: rootless}
}

// LogConfig is docker's --log-driver and --log-opt.
type LogConfig struct {
	// Driver is json-file (also for ""), local, journald, syslog or none.
	Driver string `json:"driver,omitempty"`
	// Path is the file of the json-file and local drivers.
	Path    string            `json:"path,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	// ID, Name, Image and Tag tell other logs than a file whose lines these are.
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Image string `json:"image,omitempty"`
	Tag   string `json:"tag,omitempty"`
	// Attrs are the labels and variables the options chose.
	Attrs map[string]string `json:"attrs,omitempty"`
}

// RestartPolicy is docker's --restart.
type RestartPolicy struct {
	// Name is no (also for ""), always, unless-stopped or on-failure.
	Name string `json:"name,omitempty"`
	// MaximumRetryCount bounds on-failure; 0 is no bound.
	MaximumRetryCount int `json:"maximumRetryCount,omitempty"`
}

// Health is docker's health check. Zero durations mean docker's defaults: 30 s
// interval and timeout, no start period, 5 s start interval, 3 retries.
type Health struct {
	Test          []string      `json:"test"`
	Interval      time.Duration `json:"intervalNs,omitempty"`
	Timeout       time.Duration `json:"timeoutNs,omitempty"`
	StartPeriod   time.Duration `json:"startPeriodNs,omitempty"`
	StartInterval time.Duration `json:"startIntervalNs,omitempty"`
	Retries       int           `json:"retries,omitempty"`
	// OnFailure is what becomes of an unhealthy container: none (also for ""),
	// kill, stop or restart.
	OnFailure string `json:"onFailure,omitempty"`
	// MaxLog is how many results are kept (0: five), MaxOutput how many bytes of
	// each one's output (0: 4096).
	MaxLog    int `json:"maxLog,omitempty"`
	MaxOutput int `json:"maxOutput,omitempty"`
	// Startup comes before, or is nil.
	Startup *Startup `json:"startup,omitempty"`
	// LogDir is a directory that gets a copy of the results, "" for none.
	LogDir string `json:"logDir,omitempty"`
}

// State is <runroot>/container/<id>/state.json: what was started. Whether it
// still runs is asked of the kernel.
type State struct {
	Version   int       `json:"version"`
	Pid       int       `json:"pid"`
	PidStart  uint64    `json:"pidStartTicks"`
	Monitor   int       `json:"monitor"`
	MonStart  uint64    `json:"monitorStartTicks"`
	StartedAt time.Time `json:"startedAt"`
	Restarts  int       `json:"restarts,omitempty"`
	// Restarting says that the policy waits to start it again.
	Restarting bool `json:"restarting,omitempty"`
	// Held says that the first process waits for Release.
	Held bool `json:"held,omitempty"`
}

// Exit is <root>/container/<id>/exit.json: how the last run ended.
type Exit struct {
	Version    int       `json:"version"`
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	ExitCode   int       `json:"exitCode"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	Error      string    `json:"error,omitempty"`
	Restarts   int       `json:"restarts,omitempty"`
	// Shutdown says that the machine's end was the reason, and no user.
	Shutdown bool `json:"shutdown,omitempty"`
	// NeverRan says that no run began yet, and the rest why the last start failed.
	NeverRan bool `json:"neverRan,omitempty"`
}
