package cuda

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/longalign/longalign-go/gpu/cuda/emulator"
	"github.com/longalign/longalign-go/gpu/train"
)

// What the test's own processes are told.
const (
	trainInDir = "LONGALIGN_TEST_TRAIN_IN" // the folder of checkpoints
	dieAfter   = "LONGALIGN_TEST_DIE_AFTER"
	emulatorAt = "LONGALIGN_TEST_EMULATOR"
)

// A training whose process is killed by SIGKILL twice, while a checkpoint is on its way out, ends with the bits of one that nothing
// disturbed. Each process opens the device, compiles and chooses algorithms anew.
//
// It runs beside no other test, because on a card its processes need the card.
func TestAKilledTrainingOnTheDeviceEndsWithTheSameBits(t *testing.T) {
	if dir := os.Getenv(trainInDir); dir != "" {
		trainIn(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("the emulator takes some seconds")
	}
	program := ""
	if openReal == nil {
		var err error
		if program, err = build(); errors.Is(err, emulator.ErrNoCompiler) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	run := func(dir string, die int) (ended bool) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestAKilledTrainingOnTheDeviceEndsWithTheSameBits$")
		cmd.Env = append(os.Environ(), trainInDir+"="+dir, dieAfter+"="+strconv.Itoa(die), emulatorAt+"="+program)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.Exited()) { // else a signal ended it
			t.Fatalf("%v\n%s", err, out)
		}
		return err == nil
	}
	whole, killed := t.TempDir(), t.TempDir()
	if !run(whole, 0) {
		t.Fatal("the undisturbed training was killed")
	}
	for _, die := range []int{2, 3} {
		if run(killed, die) {
			t.Fatalf("the training that dies after step %d came to its end", die)
		}
	}
	kept, err := train.Checkpoints{Dir: killed}.Latest(nil)
	if err != nil || kept == nil {
		t.Fatalf("nothing is kept of what was killed: %v", err)
	}
	kept.Release()
	if !run(killed, 0) {
		t.Fatal("the training that was resumed was killed")
	}
	result := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(dir, "result"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := result(whole), result(killed); a != b {
		t.Errorf("undisturbed:\n%skilled twice:\n%s", a, b)
	}
}

// trainIn trains from the newest checkpoint in dir to the end, and leaves weights and losses there as text.
func trainIn(t *testing.T, dir string) {
	die, err := strconv.Atoi(os.Getenv(dieAfter))
	if err != nil {
		t.Fatal(err)
	}
	o := smallOptions("bf16", 4)
	tr, _ := smallTrainer(t, openEmulated(t, uint64(die+1)), o)
	checkpoints := train.Checkpoints{Dir: dir}
	state, err := checkpoints.Latest(nil)
	if err != nil {
		t.Fatal(err)
	}
	if state != nil {
		if err := tr.Restore(state); err != nil {
			t.Fatal(err)
		}
		state.Release()
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Run(context.Background(), smallSource(t), train.LoopOptions{
		CheckpointEvery: 1, Checkpoint: checkpoints.Save,
		OnStep: func(m train.Metrics) error {
			if m.Step+1 == die {
				if err := self.Kill(); err != nil {
					return err
				}
				select {}
			}
			return nil
		},
	}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("weights %x\n", sha256.Sum256(memoryBytes(bits(t, tr))))
	for _, m := range tr.History() {
		text += fmt.Sprintf("step %d: loss %v, norm %v\n", m.Step, m.Loss, m.GradNorm)
	}
	if err := os.WriteFile(filepath.Join(dir, "result"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
