package cuda

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// versions are the major versions of the libraries that are tried, the newest first.
var versions = []string{"13", "12", "11"}

// sonames of the libraries by major version.
var sonames = map[string]map[string]string{
	"nvrtc":    {"13": "libnvrtc.so.13", "12": "libnvrtc.so.12", "11": "libnvrtc.so.11.2"},
	"cublasLt": {"13": "libcublasLt.so.13", "12": "libcublasLt.so.12", "11": "libcublasLt.so.11"},
}

// folders are where libraries may lie beyond the loader's own path: the folder that the user named, CUDA's, and those of
// Python packages, first of the environment whose python3 is on the path.
func folders() []string {
	var patterns []string
	if d := os.Getenv("LONGALIGN_CUDA_LIBRARIES"); d != "" {
		patterns = append(patterns, filepath.SplitList(d)...)
	}
	for _, v := range []string{"CUDA_HOME", "CUDA_PATH"} {
		if d := os.Getenv(v); d != "" {
			patterns = append(patterns, d+"/lib64", d+"/lib")
		}
	}
	patterns = append(patterns, "/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/opt/cuda/lib64")
	if d := os.Getenv("CONDA_PREFIX"); d != "" {
		patterns = append(patterns, d+"/lib") // conda's own packages
	}
	var pythons []string
	for _, v := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if d := os.Getenv(v); d != "" {
			pythons = append(pythons, d)
		}
	}
	if d := os.Getenv("PYENV_ROOT"); d != "" {
		pythons = append(pythons, d+"/versions/*")
	}
	if p, err := exec.LookPath("python3"); err == nil { // an environment's own, or what it links to
		for _, file := range []string{p, resolved(p)} {
			pythons = append(pythons, filepath.Dir(filepath.Dir(file)))
		}
	}
	home, _ := os.UserHomeDir()
	pythons = append(pythons, home+"/.pyenv/versions/*", home+"/.local", "/opt/venv", "/opt/conda", "/usr/local", "/usr")
	for _, p := range pythons {
		for _, packages := range []string{"site-packages", "dist-packages"} {
			patterns = append(patterns, p+"/lib/python3*/"+packages+"/nvidia/*/lib")
		}
	}
	patterns = append(patterns, "/usr/lib/python3/dist-packages/nvidia/*/lib")
	var all []string
	for _, p := range patterns {
		found, _ := filepath.Glob(p)
		for _, d := range found {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

// resolved follows links as far as it can.
func resolved(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		return real
	}
	return file
}

// candidates lists files to try for a library, the newest version first, none newer than most (the driver's major version).
// The last of a version is its bare name, for the loader to find. What lies in folders that the user named goes before all others,
// whatever its version.
func candidates(library string, most int, in []string) []string {
	var all []string
	named := filepath.SplitList(os.Getenv("LONGALIGN_CUDA_LIBRARIES"))
	for _, d := range named {
		for _, v := range versions {
			if f := filepath.Join(d, sonames[library][v]); d != "" && !newer(v, most) && exists(f) {
				all = append(all, f)
			}
		}
	}
	for _, v := range versions {
		if newer(v, most) {
			continue
		}
		name := sonames[library][v]
		for _, d := range in {
			if f := filepath.Join(d, name); exists(f) && !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
		all = append(all, name)
	}
	return all
}

// newer reports whether a version is newer than most.
func newer(version string, most int) bool {
	n, err := strconv.Atoi(version)
	return err == nil && n > most
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
