package artifact

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// CurrentCode says which code this process runs, from what the Go linker recorded.
func CurrentCode() Code { return currentCode() }

var currentCode = sync.OnceValue(func() Code {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Code{}
	}
	c := Code{Version: info.Main.Version}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			c.Revision = s.Value
		case "vcs.modified":
			c.Dirty = s.Value == "true"
		}
	}
	return c
})

// CurrentPlatform says where this process runs. GPU and Driver are for the caller to fill in: only who opened the
// device knows them.
func CurrentPlatform() Platform {
	return Platform{OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuModel(), Go: runtime.Version()}
}

// cpuModel is empty where the system does not say.
var cpuModel = sync.OnceValue(func() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
})
