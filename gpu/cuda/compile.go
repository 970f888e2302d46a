package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// target returns the architecture to compile for on a card of compute capability capability (90 for 9.0), and whether that is
// machine code. A compiler that does not know the card compiles for the newest it knows, for the driver to translate.
func target(capability int, known []int) (arch string, machineCode bool, err error) {
	if slices.Contains(known, capability) {
		return fmt.Sprintf("sm_%d", capability), true, nil
	}
	best := 0
	for _, k := range known {
		if k < capability {
			best = max(best, k)
		}
	}
	if best < 80 {
		return "", false, &Error{Kind: Architecture, Op: "compile", Text: fmt.Sprintf("the run-time compiler knows architectures %v, the card is %d", known, capability)}
	}
	return fmt.Sprintf("compute_%d", best), false, nil
}

// cache keeps compiled kernels on disk, by the hash of the source, the options and the compiler.
type cache struct{ dir string }

func (c cache) file(parts []string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return filepath.Join(c.dir, hex.EncodeToString(h.Sum(nil)))
}

// get returns what compile returned for the same parts before. A file is its content's hash, then the content: what a
// crash or a full disk left half is compiled again.
func (c cache) get(compile func() ([]byte, error), parts ...string) ([]byte, error) {
	if c.dir == "" {
		return compile()
	}
	file := c.file(parts)
	if b, err := os.ReadFile(file); err == nil && len(b) > sha256.Size {
		if sum := sha256.Sum256(b[sha256.Size:]); string(sum[:]) == string(b[:sha256.Size]) {
			return b[sha256.Size:], nil
		}
	}
	b, err := compile()
	if err != nil {
		return nil, err
	}
	c.put(file, b)
	return b, nil
}

// put writes a file whole or not at all. That it fails is no error: the next process compiles again.
func (c cache) put(file string, b []byte) {
	if os.MkdirAll(c.dir, 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(c.dir, "new")
	if err != nil {
		return
	}
	sum := sha256.Sum256(b)
	_, err = f.Write(append(sum[:], b...))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
