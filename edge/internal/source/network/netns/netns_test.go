package netns

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamespaces(t *testing.T) {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	inFresh := ""
	err = Fresh(func() error {
		inFresh, err = os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0") // there is a loopback interface
		if err != nil {
			return err
		}
		defer l.Close()
		// From inside, back to where the process is.
		return Enter("/proc/self/ns/net", func() error {
			if got, err := os.Readlink("/proc/thread-self/ns/net"); got != here {
				t.Errorf("in %s, %v after entering %s", got, err, here)
			}
			return nil
		})
	})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("%v; run as root", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if inFresh == here {
		t.Errorf("the fresh namespace is the old one, %s", here)
	}
	if now, _ := os.Readlink("/proc/self/ns/net"); now != here {
		t.Errorf("the process is in %s, want %s", now, here)
	}
	if err := Enter("/proc/self/ns/nothing", nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want that there is no such file", err)
	}
}

// The main thread is passed over.
func TestMainThread(t *testing.T) {
	for range 20 {
		err := onThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}
