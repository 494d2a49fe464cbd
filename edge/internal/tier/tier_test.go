package tier

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Shapes of processes as procfs shows them to an agent.
var (
	open     = process{}
	refused  = process{exe: unix.EACCES, root: unix.EACCES, fd: unix.EACCES}
	noFiles  = process{fd: unix.EACCES}
	own      = process{sameUID: true}
	stronger = process{sameUID: true, exe: unix.EACCES, root: unix.EACCES} // has capabilities that the agent lacks
	hidden   = process{sameUID: true, hides: true, exe: unix.EACCES, root: unix.EACCES, fd: unix.EACCES}
	// What Firecracker's init shows to root with every capability.
	firstOfMachine = process{sameUID: true, exe: unix.EACCES, root: unix.EACCES, fd: unix.EACCES}
	going          = process{exe: unix.ESRCH, root: unix.ENOENT, fd: unix.ENOENT}
)

func times(n int, p process) []process { return slices.Repeat([]process{p}, n) }

func TestTier(t *testing.T) {
	both := []string{"DAC_OVERRIDE", "SYS_PTRACE"}
	for _, c := range []struct {
		name string
		view View
		see  []process
		want Tier
		why  string // in one of the reasons
	}{
		{"root of the node", View{HostPID: true, Capabilities: both}, times(40, open), Node, ""},
		{"root of the node, by DAC_READ_SEARCH", View{HostPID: true, Capabilities: []string{"DAC_READ_SEARCH", "SYS_PTRACE"}}, times(40, open), Node, ""},
		{"root of a small virtual machine whose first process hides", View{HostPID: true, Capabilities: both},
			append(times(8, own), firstOfMachine), Node, "8 of 9 (permission denied): the others hide from every agent"},
		{"root of the node among processes that end", View{HostPID: true, Capabilities: both}, append(times(3, going), open), Node, ""},
		{"root of the node in another user namespace", View{HostPID: true, Capabilities: both}, append(times(40, refused), open), Limited, "user namespace"},
		{"root of the node, without SYS_PTRACE", View{HostPID: true}, append(times(30, refused), own), SameUID, "1 of 31"},
		{"root of the node, without DAC_OVERRIDE", View{HostPID: true, Capabilities: []string{"SYS_PTRACE"}}, append(times(30, noFiles), own), SameUID, "CAP_DAC_OVERRIDE is needed too"},
		{"root of the node without capabilities, where all that runs is root's", View{HostPID: true}, times(40, own), SameUID, "CAP_SYS_PTRACE"},
		{"root of the node with nothing to try", View{HostPID: true, Capabilities: both}, nil, Limited, "0 of 0"},
		{"the node, as a user of its own", View{UID: 65534, HostPID: true}, times(40, refused), Limited, "CAP_SYS_PTRACE"},
		{"root with both capabilities", View{Shared: true, Capabilities: both}, []process{own, open, open}, PodFull, "hostPID"},
		{"both capabilities, not root", View{UID: 1000, Shared: true, Capabilities: both}, times(3, open), PodFull, "hostPID"},
		{"root with both capabilities, alone", View{Capabilities: both}, times(2, own), Limited, "shareProcessNamespace"},
		{"root with both capabilities, which a security module ignores", View{Shared: true, Capabilities: both}, times(2, refused), Limited, "security module"},
		{"root without DAC_OVERRIDE", View{Shared: true, Capabilities: []string{"SYS_PTRACE"}}, []process{own, noFiles, noFiles}, SameUID, "CAP_DAC_OVERRIDE"},
		{"root without capabilities beside root with some", View{Shared: true}, []process{own, stronger}, Limited, "capabilities that the agent lacks"},
		{"the application's user", View{UID: 1000, Shared: true}, []process{own, refused}, SameUID, "hostPID"},
		{"the application's user, beside one that hides", View{UID: 1000, Shared: true}, []process{own, hidden}, SameUID, "1 of the own user's processes hide"},
		{"the application's user, all of whose processes hide", View{UID: 1000, Shared: true}, []process{hidden}, Limited, "not dumpable"},
		{"another user", View{UID: 65534, Shared: true}, times(2, refused), Limited, "application's user"},
		{"alone", View{UID: 65534}, nil, Limited, "shareProcessNamespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.view
			for _, p := range c.see {
				v.add(p)
			}
			if got := v.Tier(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			why := strings.Join(v.Reasons(), "\n")
			if c.why == "" && why != "" || !strings.Contains(why, c.why) {
				t.Errorf("got reasons %q, want one with %q", why, c.why)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	got := capabilities("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000080002\n")
	if diff := cmp.Diff([]string{"DAC_OVERRIDE", "SYS_PTRACE"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := capabilities("CapEff:\tno number\n"); got != nil {
		t.Errorf("got %v of nonsense", got)
	}
}

// TestMain lets the test run itself as another user, in other namespaces: it prints what it sees.
func TestMain(m *testing.M) {
	if os.Getenv("TIER_TEST_LOOK") == "" {
		os.Exit(m.Run())
	}
	v, err := Look("/proc")
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(looked{v.Tier(), v}); err != nil {
		panic(err)
	}
}

type looked struct {
	Tier Tier
	View View
}

// look runs the test as a program, by a command of which it is the last argument.
func look(t *testing.T, command ...string) looked {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root; run the tests as root")
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "tier") //nolint:usetesting // only root may enter the folders above t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/look", binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	command = append(command, dir+"/look")
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "TIER_TEST_LOOK=1")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%q: %v: %s", command, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var got looked
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLook(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	v, err := Look("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if v.Others < 1 || v.SameUID.Tried < 1 || v.Cmdline.Refused != 0 || v.Cmdline.Tried == 0 {
		t.Errorf("got %+v, want at least our child, and every command line", v)
	}
	if _, err := Look(t.TempDir()); err == nil {
		t.Error("got no error where there is no procfs")
	}
}

// unshares reports whether namespaces may be made here.
func unshares(t *testing.T, flags ...string) bool {
	t.Helper()
	out, err := exec.Command("unshare", append(flags, "true")...).CombinedOutput()
	if err != nil {
		t.Logf("SKIPPED: unshare %q: %v: %s: run the tests where namespaces may be made", flags, err, out)
	}
	return err == nil
}

// TestLookAs looks with less and less right at a child of ours, which is root's, and another that is nobody's.
func TestLookAs(t *testing.T) {
	for _, credential := range []*syscall.Credential{{}, {Uid: 65534, Gid: 65534}} {
		child := exec.Command("sleep", "600")
		child.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		if err := child.Start(); err != nil {
			t.Skipf("%v: becoming another user needs root; run the tests as root", err)
		}
		defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	}
	machine := look(t)
	if machine.View.HostPID && machine.View.can("SYS_PTRACE") && machine.Tier != Node {
		t.Errorf("as root: got %s of %+v, want %s", machine.Tier, machine.View, Node)
	}
	const only = "--bounding-set=-all,"
	for _, c := range []struct {
		name    string
		command []string
		want    Tier
		exe, fd bool // all could be read
	}{
		{"root with both capabilities", []string{"setpriv", only + "+sys_ptrace,+dac_override"}, machine.Tier, true, true},
		{"root with SYS_PTRACE only", []string{"setpriv", only + "+sys_ptrace"}, Limited, true, false},
		{"root without capabilities", []string{"setpriv", only + "-sys_ptrace"}, Limited, false, false},
		{"nobody", []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, SameUID, false, false},
		{"a user of no other process", []string{"setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"}, Limited, false, false},
	} {
		got := look(t, c.command...)
		if c.want == Limited && got.Tier == SameUID && got.View.SameUID.Refused == 0 && got.View.SameUID.Tried > 0 {
			c.want = SameUID // true: nothing of this user's has more capabilities here
		}
		if got.Tier != c.want || !c.exe && got.View.Exe.Refused == 0 || !c.fd && got.View.FD.Refused == 0 {
			t.Errorf("as %s: got %s of %+v, want %s", c.name, got.Tier, got.View, c.want)
		}
		if got.View.Cmdline.Refused > 0 {
			t.Errorf("as %s: got %v of the command lines, want all", c.name, got.View.Cmdline)
		}
	}
	for _, c := range []struct {
		name  string
		flags []string
	}{
		{"the first process of its pid namespace", []string{"--pid", "--fork", "--mount-proc"}},
		{"root of a user and pid namespace", []string{"--user", "--map-root-user", "--pid", "--fork", "--mount-proc"}},
	} {
		if !unshares(t, c.flags...) {
			continue
		}
		got := look(t, append([]string{"unshare"}, c.flags...)...)
		if got.Tier != Limited || got.View.HostPID || got.View.Shared {
			t.Errorf("as %s: got %s of %+v, want %s, with neither the machine nor another container in view", c.name, got.Tier, got.View, Limited)
		}
	}
	if !unshares(t, "--user", "--map-root-user") {
		return
	}
	// Capabilities over nobody: of a user namespace that none of the processes in view is in.
	got := look(t, "unshare", "--user", "--map-root-user")
	if got.Tier == Node || got.Tier == PodFull || !got.View.can("SYS_PTRACE") {
		t.Errorf("as root of a user namespace: got %s of %+v, want neither %s nor %s", got.Tier, got.View, Node, PodFull)
	}
}
