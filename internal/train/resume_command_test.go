package train

import "testing"

func TestResumeCommand(t *testing.T) {
	for _, test := range []struct {
		name    string
		session *session
		sets    []string
		want    string
	}{
		{"nothing given", &session{dir: "runs/x"}, nil, "sambatrain resume runs/x"},
		{"a folder to quote", &session{dir: "my runs/x"}, nil, "sambatrain resume 'my runs/x'"},
		{"all that was given", &session{dir: "x", sets: []string{"run.threads=1", "train.steps=9"}, options: Options{AllowDataChange: true, Flags: []string{"--output", "json"}}}, nil,
			"sambatrain resume x --set run.threads=1 --set train.steps=9 --allow-data-change --output json"},
		{"a change", &session{dir: "x", sets: []string{"run.threads=1"}}, []string{lowerLR},
			"sambatrain resume x --set run.threads=1 --set optim.lr=..."},
		{"a change of what was given", &session{dir: "x", sets: []string{"optim.lr=1", "run.threads=1"}}, []string{lowerLR},
			"sambatrain resume x --set run.threads=1 --set optim.lr=..."},
		{"twice the same", &session{dir: "x", sets: []string{"optim.lr=1", "optim.lr=1"}}, nil, "sambatrain resume x --set optim.lr=1"},
		{"keys alike", &session{dir: "x", sets: []string{"optim.lr=1", "optim.lr_x=2"}}, nil, "sambatrain resume x --set optim.lr=1 --set optim.lr_x=2"},
		{"a value with spaces", &session{dir: "x", sets: []string{"data.mixture=[{name: a}]"}}, nil, "sambatrain resume x --set 'data.mixture=[{name: a}]'"},
	} {
		if got := test.session.resumeCommand(test.sets...); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
