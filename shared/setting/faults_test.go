package setting

import (
	"errors"
	"testing"
	"time"
)

func TestFaultsOfValidate(t *testing.T) {
	var f Faults
	Between(&f, "LOW", 1, 1, 3)
	Between(&f, "HIGH", 3*time.Second, time.Second, 3*time.Second)
	if err := f.Err(nil); err != nil {
		t.Errorf("got %v of what is right", err)
	}
	because := errors.New("it is in use")
	Between(&f, "COUNT", 0, 1, 3)
	Between(&f, "WAIT", time.Hour, 0, time.Minute)
	f.Add("NAME", "%q is taken: %w", "a", because)
	err := f.Err(errors.New("and more"))
	want := "COUNT: 0 is not between 1 and 3\nWAIT: 1h0m0s is not between 0s and 1m0s\nNAME: \"a\" is taken: it is in use\nand more"
	if err == nil || err.Error() != want || !errors.Is(err, because) {
		t.Errorf("got %v, want %s", err, want)
	}
}
