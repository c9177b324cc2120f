package checkpoint

import (
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Finite returns an error that names the first of the tensors that contains an infinity or a NaN,
// and the value. Save does not check this: whether such a state is worth saving is up to the
// caller.
func Finite(tensors []Tensor) error {
	return firstError(tensors, func(t Tensor) error {
		for _, x := range t.Data {
			const infinite = 0xff << 23
			if math.Float32bits(x)&infinite == infinite {
				return fmt.Errorf("%s holds %v", t.Name, x)
			}
		}
		return nil
	})
}

// firstError calls check for each element of a list, several at once, and returns the error of the
// first one in the list that has one.
func firstError[T any](list []T, check func(T) error) error {
	errs := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, x := range list {
		g.Go(func() error {
			errs[i] = check(x)
			return nil
		})
	}
	_ = g.Wait() // the errors are in the list
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
