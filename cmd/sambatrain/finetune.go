package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// tasks are the values of --task.
var tasks = []string{data.TaskPasskey, data.TaskPhonebook}

func newFinetune(a *app) *cobra.Command {
	var flags recipeFlags
	var processes processFlags
	var output outputForm
	var task string
	c := &cobra.Command{
		Use:   "finetune RUN_DIR [RECIPE]",
		Short: "Train a run's model further, on another task or text",
		Long: `Start a new run from the parameters of another run's newest good checkpoint. The recipe
is that of the other run, changed by a task, by RECIPE (a recipe without a model section)
and by --set, in this order; the optimizer state starts fresh.

--task passkey and --task phonebook generate documents on the fly, no two alike, and train
on their answers (Samba, arXiv 2406.07522, section 3.3 and appendix C: 500 and 100 steps,
learning rate 1e-4); batch size and row length stay those of the run. The new run is named
after the other one and the task, as in samba-passkey. Measure the result with
` + "`sambatrain eval passkey`" + ` and ` + "`sambatrain eval phonebook`" + `.` + olderCheckpoint,
		Example: "  sambatrain finetune runs/samba --task passkey --out runs/samba-passkey",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return exactArgs("RUN_DIR [RECIPE]")(c, args)
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return completeRecipe(c, args, word)
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			recipe := ""
			if len(args) == 2 {
				recipe = args[1]
			}
			if err := checkTask(task, recipe); err != nil {
				return err
			}
			r, err := flags.loadBy(c, func(sets []string) (*recipes.Recipe, error) {
				base, err := train.TrainedConfig(args[0])
				if err != nil {
					return nil, err
				}
				return recipes.FineTune(base, args[0], task, recipe, sets...)
			})
			if err != nil {
				return err
			}
			return a.pretrain(c, r, processes, output)
		},
	}
	c.Flags().StringVar(&task, "task", "", "task to train on: passkey or phonebook")
	offer(c, "task", tasks)
	flags.addRun(c)
	processes.add(c)
	outputFlag(c, &output)
	return c
}

// checkTask rejects an unknown task, and a command with neither task nor recipe, which would train on
// the same data as before.
func checkTask(task, recipe string) error {
	switch {
	case task != "" && !slices.Contains(tasks, task):
		return &usageError{fmt.Errorf("--task: must be passkey or phonebook, is %q", task)}
	case task == "" && recipe == "":
		return &usageError{errors.New("finetune: name a --task or a RECIPE to train on")}
	}
	return nil
}
