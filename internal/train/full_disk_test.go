package train

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestFullDiskSaysWhatToDo: a run that has begun can continue once there is space again.
func TestFullDiskSaysWhatToDo(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		full := fmt.Errorf("write runs/x/optimizer.safetensors: %w", cause)
		err := (&session{dir: "runs/x", step: 3}).leave(full)
		if !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), "; free some space and continue with: sambatrain resume runs/x") {
			t.Errorf("error %v", err)
		}
		if err := (&session{dir: "runs/x"}).leave(full); err != full {
			t.Errorf("before the first step: %v", err)
		}
	}
}
