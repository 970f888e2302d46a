//go:build linux && amd64 && !purego

package host

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// The AVX-512 kernels run where no processor has AVX-512: in the Bochs emulator, which boots a Linux kernel whose only
// program is this test binary. TestMain is both ends of it: as process 1 of the emulated machine it runs the tests that
// concern kernels and powers off.
//
// On Debian: apt-get install bochs bochsbios vgabios bochs-term isolinux xorriso cpio, and a kernel:
// apt-get download linux-image-…-cloud-amd64 and dpkg-deb -x give one (it starts several times faster than the general one).

// emulateVariable names the Linux kernel to boot (a vmlinuz); without it TestAVX512UnderEmulation skips.
const emulateVariable = "LONGALIGN_EMULATE_KERNEL"

const (
	emulatedTests  = "Kernels|Tiles|Exponential|EitherWidth|FuzzProduct/seed#[0-4]|RowsDoNotDepend|TestDevice/avx512"
	emulatedPassed = "emulated tests passed"
	emulatedFailed = "emulated tests failed"
)

func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	guest()
}

// guest runs the tests in a child, since process 1 must live, and powers the machine off.
func guest() {
	for _, fs := range []string{"proc", "devtmpfs"} {
		dir := map[string]string{"proc": "/proc", "devtmpfs": "/dev"}[fs]
		if err := cmp.Or(os.MkdirAll(dir, 0o755), syscall.Mount(fs, dir, fs, 0, "")); err != nil {
			fmt.Println("mount", fs, err)
		}
	}
	fmt.Printf("AVX-512: F %v DQ %v BW %v VL %v, kernels %v\n", cpu.X86.HasAVX512F, cpu.X86.HasAVX512DQ, cpu.X86.HasAVX512BW, cpu.X86.HasAVX512VL, KernelSets())
	tests := exec.Command("/init", "-test.v", "-test.timeout=1h", "-test.run="+emulatedTests)
	tests.Env = []string{"HOME=/", "TMPDIR=/"}
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	if err := tests.Run(); err != nil || KernelSets()[0] != "avx512" {
		fmt.Println(emulatedFailed, err)
	} else {
		fmt.Println(emulatedPassed)
	}
	// The emulator does not flush its serial line when the machine goes off: push what matters out with more than a buffer.
	fmt.Println(strings.Repeat(strings.Repeat(" ", 63)+"\n", 256))
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("power off:", err)
	}
	select {}
}

const bochsConfig = `megs: 512
cpu: model=corei7_skylake_x, count=1, ips=200000000, reset_on_triple_fault=0
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
display_library: term
clock: sync=none
log: bochs.log
panic: action=fatal
`

// The emulator gives the compacted XSAVE area a wrong size, over which Linux gives up AVX; without XSAVEC and XSAVES
// (features 321 and 323) it takes the plain area.
const bootConfig = `default test
label test
 kernel vmlinuz
 append initrd=initrd console=ttyS0 quiet noxsaves clearcpuid=321,323 mitigations=off nokaslr no_timer_check lpj=1000000 panic=-1 rdinit=/init
`

func TestAVX512UnderEmulation(t *testing.T) {
	kernel := os.Getenv(emulateVariable)
	if kernel == "" {
		t.Skipf("set %s to a Linux kernel to boot it in Bochs; make test-avx512 does", emulateVariable)
	}
	for _, tool := range []string{"bochs", "xorriso", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	run := func(in, name string, args ...string) []byte {
		t.Helper()
		c := exec.CommandContext(ctx, name, args...)
		c.Dir, c.Stdin = dir, strings.NewReader(in)
		var out, log bytes.Buffer
		c.Stdout, c.Stderr = &out, &log
		if err := c.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, log.Bytes())
		}
		return out.Bytes()
	}
	write := func(name string, data []byte, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, mode); err != nil {
			t.Fatal(err)
		}
	}
	install := func(name, from string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(name, data, mode)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(dir, "init"), ".")
	build.Dir, build.Env = here, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	write("iso/initrd", run("init\n", "cpio", "--quiet", "-o", "-H", "newc"), 0o644)
	install("iso/vmlinuz", kernel, 0o644)
	install("iso/isolinux.bin", "/usr/lib/ISOLINUX/isolinux.bin", 0o644)
	install("iso/ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32", 0o644)
	write("iso/isolinux.cfg", []byte(bootConfig), 0o644)
	run("", "xorriso", "-as", "mkisofs", "-quiet", "-o", "boot.iso", "-b", "isolinux.bin", "-c", "boot.cat",
		"-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "iso")
	write("bochsrc", []byte(bochsConfig), 0o644)
	write("commands", []byte("c\n"), 0o644) // a build with the debugger waits to be told to go on
	if err := onTerminal(exec.CommandContext(ctx, "bochs", "-q", "-f", "bochsrc", "-rc", "commands"), dir); err != nil {
		t.Log(err) // the emulated power-off counts as a failure
	}
	serial, err := os.ReadFile(filepath.Join(dir, "serial.txt"))
	if err != nil {
		t.Fatal(err)
	}
	said := strings.TrimSpace(strings.ReplaceAll(string(serial), "\x00", ""))
	if !strings.Contains(said, emulatedPassed) {
		t.Fatalf("the emulated machine said:\n%s", said)
	}
	t.Logf("the emulated machine said:\n%s", said)
}

// onTerminal runs a command in dir on a terminal of its own, which Bochs asks for, and drops what it shows.
func onTerminal(c *exec.Cmd, dir string) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer terminal.Close()
	go func() { _, _ = io.Copy(io.Discard, master) }()
	c.Dir, c.Env = dir, append(os.Environ(), "TERM=xterm")
	c.Stdin, c.Stdout, c.Stderr = terminal, terminal, terminal
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return c.Run()
}
