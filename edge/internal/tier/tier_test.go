package tier

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func access(tried, refused int) Access {
	a := Access{Tried: tried, Refused: refused}
	if refused > 0 {
		a.Err = errors.New("permission denied")
	}
	return a
}

func TestTier(t *testing.T) {
	for _, c := range []struct {
		name string
		view View
		want Tier
		why  string // in one of the reasons
	}{
		{"root of the node", View{HostPID: true, Others: 40, Exe: access(40, 0), Root: access(40, 0), FD: access(40, 0)}, Node, ""},
		{"root of the node, where one process hides", View{HostPID: true, Others: 40, Exe: access(40, 1)}, Node, "39 of 40"},
		{"the node, without SYS_PTRACE", View{HostPID: true, Others: 40, Exe: access(40, 30), ExeSameUID: access(10, 0)}, SameUID, "10 of 40"},
		{"the node, as a user of its own", View{UID: 65534, HostPID: true, Others: 40, Exe: access(40, 40)}, Limited, "CAP_SYS_PTRACE"},
		{"root with both capabilities", View{Others: 3, Exe: access(3, 0), Root: access(3, 0), FD: access(3, 0), ExeSameUID: access(1, 0)}, PodFull, "hostPID"},
		{"root without DAC_OVERRIDE", View{Others: 3, Exe: access(3, 0), Root: access(3, 0), FD: access(3, 2), ExeSameUID: access(1, 0)}, SameUID, "CAP_DAC_OVERRIDE"},
		{"the application's user", View{UID: 1000, Others: 2, Exe: access(2, 0), Root: access(2, 0), FD: access(2, 0), ExeSameUID: access(2, 0)}, SameUID, "hostPID"},
		{"another user", View{UID: 65534, Others: 2, Exe: access(2, 2), FD: access(2, 2)}, Limited, "application's user"},
		{"alone", View{UID: 65534}, Limited, "shareProcessNamespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.view.Tier(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			why := strings.Join(c.view.Reasons(), "\n")
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

// TestMain lets the test run itself as another user: it prints what it sees.
func TestMain(m *testing.M) {
	if os.Getenv("TIER_TEST_LOOK") == "" {
		os.Exit(m.Run())
	}
	v, err := Look("/proc")
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"tier": v.Tier(), "others": v.Others, "refused": v.Exe.Refused, "cmdlines": v.Cmdline.Tried}); err != nil {
		panic(err)
	}
}

func TestLook(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	v, err := Look("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if v.Others < 1 || v.ExeSameUID.Tried < 1 || v.Cmdline.Refused != 0 || v.Exe.Tried != v.Others {
		t.Errorf("got %+v, want at least our child, and every command line", v)
	}
	if _, err := Look(t.TempDir()); err == nil {
		t.Error("got no error where there is no procfs")
	}
}

func TestLookAsNobody(t *testing.T) {
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
	cmd := exec.Command(dir + "/look")
	cmd.Env = []string{"TIER_TEST_LOOK=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Tier                      Tier
		Others, Refused, Cmdlines int
	}
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Tier != Limited || got.Refused == 0 || got.Cmdlines == 0 {
		t.Errorf("got %+v, want tier %q with executables refused and command lines read", got, Limited)
	}
}
