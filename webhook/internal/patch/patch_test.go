package patch

import (
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
)

func TestPatch(t *testing.T) {
	var p Patch
	if p.Bytes() != nil {
		t.Errorf("got %s want nothing", p.Bytes())
	}
	p.Add("/a", []byte(`[1]`))
	p.Add("/a/-", []byte(`2`))
	p.Add("/a/0", []byte(`0`))
	p.Add("/m/"+Escape("x/y~z"), []byte(`"\u003c"`))
	parsed, err := jsonpatch.DecodePatch(p.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := parsed.Apply([]byte(`{"m":{},"b":1.50}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":[0,1,2],"b":1.50,"m":{"x/y~z":"\u003c"}}`; !jsonpatch.Equal(got, []byte(want)) {
		t.Errorf("got %s want %s", got, want)
	}
}
