package jieba

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// EnvDir names the environment variable that points to a jieba data directory.
const EnvDir = "LONGALIGN_JIEBA"

// ErrNotFound is returned by Find when no jieba data is installed.
var ErrNotFound = errors.New("no jieba dictionary found, which scoring Chinese text needs; " +
	"run `starter fetch jieba`, or `pip install jieba==0.42.1`, or pass --jieba DIR (or set " + EnvDir +
	") with the directory that holds jieba's dict.txt")

// CacheDir is where `starter fetch jieba` puts the data files.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "longalign", "jieba"), nil
}

// Find returns the jieba data directory: dir if it is not empty, else what
// LONGALIGN_JIEBA names, else the fetched copy in the user's cache, else the
// newest installed Python jieba in the usual places. A directory that the user named
// but that holds no dictionary is an error; nothing else is tried then.
func Find(dir string) (string, error) {
	for _, named := range []struct{ by, dir string }{{"--jieba", dir}, {EnvDir, os.Getenv(EnvDir)}} {
		if named.dir == "" {
			continue
		}
		// The package's parent (site-packages, an unpacked sdist) is accepted too.
		for _, d := range []string{named.dir, filepath.Join(named.dir, "jieba")} {
			if holdsDictionary(d) {
				return d, nil
			}
		}
		return "", fmt.Errorf("jieba: %s is %s, where there is no %s; name the directory that holds it", named.by, named.dir, DictFile)
	}
	if cache, err := CacheDir(); err == nil && holdsDictionary(cache) {
		return cache, nil
	}
	for _, pattern := range sitePackages() {
		matches, _ := filepath.Glob(filepath.Join(pattern, "jieba"))
		for i := len(matches) - 1; i >= 0; i-- {
			if holdsDictionary(matches[i]) {
				return matches[i], nil
			}
		}
	}
	return "", fmt.Errorf("jieba: %w", ErrNotFound)
}

// Open finds the data as Find does and loads it.
func Open(dir string) (*Dictionary, error) {
	found, err := Find(dir)
	if err != nil {
		return nil, err
	}
	return Load(os.DirFS(found))
}

func holdsDictionary(dir string) bool {
	for _, name := range []string{DictFile, EmitFile} {
		if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// sitePackages lists glob patterns of the directories Python installs packages
// to, the user's own environments first.
func sitePackages() []string {
	var dirs []string
	dirs = append(dirs, filepath.SplitList(os.Getenv("PYTHONPATH"))...)
	under := func(root string, patterns ...string) {
		if root == "" {
			return
		}
		for _, p := range patterns {
			dirs = append(dirs, filepath.Join(root, filepath.FromSlash(p)))
		}
	}
	const site = "lib/python3*/site-packages"
	home, _ := os.UserHomeDir()
	if runtime.GOOS == "windows" {
		for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
			under(os.Getenv(env), "Lib/site-packages")
		}
		under(os.Getenv("LOCALAPPDATA"), "Programs/Python/Python3*/Lib/site-packages")
		under(os.Getenv("APPDATA"), "Python/Python3*/site-packages")
		return dirs
	}
	for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		under(os.Getenv(env), site)
	}
	under(home, ".local/"+site, ".pyenv/versions/*/"+site, "Library/Python/3*/lib/python/site-packages",
		"miniconda3/"+site, "anaconda3/"+site)
	under(os.Getenv("PYENV_ROOT"), "versions/*/"+site)
	for _, prefix := range []string{"/usr/local", "/usr", "/opt/conda", "/opt/homebrew"} {
		under(prefix, site, "lib/python3*/dist-packages")
	}
	return dirs
}
