package workflows_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/longalign/longalign-go"

// TestDependenciesPointOneWay reads the imports of every package of the module, without those of tests.
func TestDependenciesPointOneWay(t *testing.T) {
	// -tags cuda: what is built only with it has rules, too. -find reads imports without loading what they lead to.
	list := exec.Command("go", "list", "-find", "-tags", "cuda", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", module+"/...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(strings.ReplaceAll(line, module+"/", ""))
		imports[f[0]] = f[1:]
	}
	if len(imports) < 15 {
		t.Fatalf("only %d packages listed", len(imports))
	}
	for name, rule := range map[string]struct {
		from   string // packages the rule is about
		except string
		never  string
	}{
		"only the s3 backend knows the AWS SDK":                {".*", "datasets/artifact/s3", "github.com/aws/.*"},
		"only gpu/cuda knows the CUDA bindings":                {".*", "gpu/cuda(/.*)?", "gorgonia.org/.*"},
		"the stages' pure code knows nothing above it":         {"datasets(/.*)?", "", "(gpu|reports|activities|workflows|worker|starter)(/.*)?"},
		"the stages' pure code knows no Temporal":              {"datasets(/.*)?", "", "go.temporal.io/.*"},
		"training knows nothing of activities and reports":     {"gpu(/.*)?", "", "(reports|activities|workflows|worker|starter)(/.*)?"},
		"training knows no Temporal and no store":              {"gpu(/.*)?", "", "go.temporal.io/.*|datasets/artifact(/.*)?"},
		"reports know nothing of activities":                   {"reports(/.*)?", "", "(gpu|activities|workflows|worker|starter)(/.*)?"},
		"activities know nothing of workflows":                 {"activities(/.*)?", "", "(workflows|worker|starter)(/.*)?"},
		"workflows touch neither devices nor files":            {"workflows", "", "gpu(/.*)?|os|os/exec|io/ioutil|net|net/http|math/rand(/v2)?"},
		"what is installed does not carry the tests' servers":  {"worker", "", "testenv(/.*)?"},
		"what stages compute does not come from the network":   {"(datasets|gpu|reports)(/.*)?", "datasets/artifact/s3|datasets/fetch|gpu/serve", "net|net/http"},
		"no program links the testing package":                 {".*", ".*(test|testenv|testenv/.*)", "testing"},
		"what belongs to no package has no package of its own": {".*", "", ".*/(utils?|common|shared|helpers?)"},
	} {
		t.Run(name, func(t *testing.T) {
			from, except, never := whole(rule.from), whole(rule.except), whole(rule.never)
			subjects := 0
			for pkg, needs := range imports {
				if !from.MatchString(pkg) {
					continue
				}
				subjects++
				if except.MatchString(pkg) {
					continue
				}
				for _, need := range needs {
					if never.MatchString(need) {
						t.Errorf("%s imports %s", pkg, need)
					}
				}
			}
			if subjects == 0 {
				t.Errorf("no package matches %s", rule.from)
			}
		})
	}
}

func whole(pattern string) *regexp.Regexp { return regexp.MustCompile("^(" + pattern + ")$") }

func TestTheMainModuleHasNoServers(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"go.temporal.io/server", "github.com/versity/versitygw", "github.com/temporalio/ui-server", "modernc.org/sqlite"} {
		if strings.Contains(string(mod), server) {
			t.Errorf("go.mod names %s: servers belong to the module testenv/devstack", server)
		}
	}
}
