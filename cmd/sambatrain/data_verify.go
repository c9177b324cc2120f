package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
)

// verifiedShard is one shard in the command's result.
type verifiedShard struct {
	data.Verified
	Error string `json:"error,omitempty"`
	// Unreadable: this process can't read it, so it may be good in spite of Error.
	Unreadable bool `json:"unreadable,omitempty"`
}

func newDataVerify() *cobra.Command {
	var output outputForm
	c := &cobra.Command{
		Use:   "verify SHARDS...",
		Short: "Read whole token shards and compare them with their manifest",
		Long: `Check folders of token shards completely: the checksum of every file, the ids of every
row, the ends of documents, and the counts of the manifest. Exit status 1 if a shard is
damaged or can't be read.`,
		Example: "  sambatrain data verify runs/data/go-source",
		Args:    atLeastOneArg("folder of shards"),
		RunE: func(c *cobra.Command, args []string) error {
			list := []verifiedShard{}
			bad := false
			var folders []error
			for _, dir := range args {
				tell := progress("verifying "+dir, "shards")
				found, err := data.Verify(c.Context(), dir, func(done, shards int) { tell(int64(done), int64(shards)) })
				for _, v := range found {
					one := verifiedShard{Verified: v}
					if v.Err != nil {
						bad = true
						one.Error, one.Unreadable = v.Err.Error(), checkpoint.Refused(v.Err)
					}
					list = append(list, one)
				}
				folders = append(folders, err)
			}
			err := printResult(c, output, list, func(w io.Writer) error { return verifiedText(w, list) })
			if err == nil {
				err = errors.Join(folders...)
			}
			if err == nil && bad {
				err = errReported
			}
			return err
		},
	}
	outputFlag(c, &output)
	return c
}

func verifiedText(w io.Writer, list []verifiedShard) error {
	for _, v := range list {
		var err error
		if v.Err != nil {
			_, err = fmt.Fprintf(w, "%-8s %s\n", fault(v.Unreadable), v.Error)
		} else {
			_, err = fmt.Fprintf(w, "good     %s, %s, %s\n", v.File, count(v.Documents, "document"), count(v.Tokens, "token"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
