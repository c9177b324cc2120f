package shell

import (
	"os/exec"
	"testing"
)

func TestQuote(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	for _, test := range []struct {
		text   string
		quoted bool
	}{
		{"runs/samba-421m", false},
		{"/läufe/a_b.c", false},
		{"", true},
		{"my run", true},
		{"it's", true},
		{"~/run", true},
		{"a$HOME`b`\"*", true},
		{"a\\b", true},
		{"a\nb", true},
	} {
		word := Quote(test.text)
		if (word != test.text) != test.quoted {
			t.Errorf("%q becomes %s", test.text, word)
		}
		if got, err := exec.Command(sh, "-c", "printf %s "+word).Output(); err != nil || string(got) != test.text {
			t.Errorf("%q is %q for a shell, %v", test.text, got, err)
		}
	}
}

func TestCommand(t *testing.T) {
	if got, want := Command("go", "my file", "--set", "a=b"), "go "+Quote("my file")+" --set a=b"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
