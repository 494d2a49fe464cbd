package process

import "testing"

// TestAccounts: what was created is what was seen and what was missed, whatever became of it since.
func TestAccounts(t *testing.T) {
	shell := fake{pid: 1, comm: "sh", stack: 1, exe: "/bin/sh"}
	tr := newTree(t, 10, shell)
	balance := func(what string, created, twice uint64) {
		t.Helper()
		st := tr.s.Stats()
		sum := st.Threads + st.Forks + st.Full + st.Partial + st.ByName + st.Excluded + st.MissedAtMost - st.Twice
		if st.Created != created || sum != created || st.Twice != twice {
			t.Errorf("%s: %d created, %d accounted for, %d twice; want %d, %[5]d, %d: %+v", what, st.Created, sum, st.Twice, created, twice, st)
		}
	}
	shell.stack, shell.comm, shell.exe = 2, "nc", "/bin/nc"
	tr.set(shell)
	tr.scan(listEvery, "exec 1 /bin/nc")
	balance("one of the baseline runs a program", 0, 1)
	tr.cursor(13) // 11 is gone
	tr.set(fake{pid: 12, ppid: 1, exe: "/bin/nc", flags: flagForkNoExec})
	tr.set(fake{pid: 13, ppid: 1, exe: "/bin/nc", flags: flagForkNoExec})
	tr.scan(soon)
	balance("two forks", 3, 1)
	tr.set(fake{pid: 12, ppid: 1, comm: "a", stack: 3, exe: "/bin/a"})
	tr.scan(soon, "exec 12 /bin/a")
	balance("a fork runs a program", 3, 2)
	tr.remove(13)
	tr.scan(2 * listEvery)
	balance("a fork ends unseen", 3, 3)
	tr.set(fake{pid: 12, ppid: 1, comm: "b", stack: 4, exe: "/bin/b"})
	tr.scan(listEvery, "exec 12 /bin/b")
	balance("another program in its place", 3, 4)
}
