package data

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Report describes a folder of shards, from its manifest and the footers of its files.
type Report struct {
	Folder     string      `json:"folder"`
	Manifest   Manifest    `json:"manifest"`
	Schema     string      `json:"schema"`
	Train      SplitReport `json:"train"`
	Validation SplitReport `json:"validation"`

	// UnigramBitsPerByte is Manifest.UnigramBitsPerByte, nil if it is unknown.
	UnigramBitsPerByte *float64 `json:"unigram_bits_per_byte"`
}

// SplitReport is what the files of a split add to its SplitInfo.
type SplitReport struct {
	Files            int     `json:"files"`
	FileBytes        int64   `json:"file_bytes"`
	RowGroups        int     `json:"row_groups"`
	LargestRowGroup  int64   `json:"largest_row_group"` // in tokens
	CompressionRatio float64 `json:"compression_ratio"` // bytes of text divided by FileBytes
	MeanDocument     float64 `json:"mean_document"`     // in tokens
	BytesPerToken    float64 `json:"bytes_per_token"`
}

// Inspect describes a folder of shards. It decodes no tokens; see Verify.
func Inspect(dir string) (Report, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return Report{}, err
	}
	r := Report{Folder: dir, Manifest: m, Schema: "document: string, tokens: list<int32>, bytes: int64"}
	if r.Train, err = inspectSplit(dir, m, Train); err != nil {
		return Report{}, err
	}
	if r.Validation, err = inspectSplit(dir, m, Validation); err != nil {
		return Report{}, err
	}
	if bits, ok := m.UnigramBitsPerByte(); ok {
		r.UnigramBitsPerByte = &bits
	}
	return r, nil
}

func inspectSplit(dir string, m Manifest, split Split) (SplitReport, error) {
	info := m.Split(split)
	r := SplitReport{Files: len(info.Shards)}
	for _, s := range info.Shards {
		f, reader, err := s.openFile(dir, m.Tokenizer, split)
		if err != nil {
			return SplitReport{}, err
		}
		f.Close()
		r.FileBytes += s.Size
		r.RowGroups += len(reader.rowGroups)
		for _, g := range reader.rowGroups {
			r.LargestRowGroup = max(r.LargestRowGroup, g.tokens)
		}
	}
	if r.FileBytes > 0 && info.Documents > 0 {
		r.CompressionRatio = float64(info.Bytes) / float64(r.FileBytes)
		r.MeanDocument = float64(info.Tokens) / float64(info.Documents)
		r.BytesPerToken = float64(info.Bytes) / float64(info.Tokens)
	}
	return r, nil
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }

	m := r.Manifest
	line("folder\t%s", r.Folder)
	line("schema\t%s (format %d)", r.Schema, m.Format)
	line("tokenizer\t%s, %d ids, end of text %d, %s", m.Tokenizer.Name, m.Tokenizer.VocabSize, m.Tokenizer.EOS, m.Tokenizer.Fingerprint)
	if s := m.Source; s != nil {
		folder := s.Folder
		if s.Path != s.Folder { // it has variables
			folder += fmt.Sprintf(" (from %s)", s.Path)
		}
		line("text\t%s, include %s, exclude %s", folder, list(s.Include, "everything"), list(s.Exclude, "nothing"))
		if len(s.Validation) > 0 {
			line("validation\t%s", list(s.Validation, ""))
		}
		line("files read\t%d; left out: %d empty documents, %d links and special files", s.Files, s.EmptyDocuments, s.NotRegular)
	} else {
		line("text\tunknown: the shards were written by another program")
	}
	line("")
	line("\ttrain\tvalidation")
	row := func(name, format string, of func(SplitInfo, SplitReport) any) {
		line("%s\t"+format+"\t"+format, name, of(m.Train, r.Train), of(m.Validation, r.Validation))
	}
	row("documents", "%d", func(i SplitInfo, _ SplitReport) any { return i.Documents })
	row("tokens", "%d", func(i SplitInfo, _ SplitReport) any { return i.Tokens })
	row("bytes of text", "%d", func(i SplitInfo, _ SplitReport) any { return i.Bytes })
	row("bytes per token", "%.3f", func(_ SplitInfo, s SplitReport) any { return s.BytesPerToken })
	row("tokens per document, mean", "%.1f", func(_ SplitInfo, s SplitReport) any { return s.MeanDocument })
	row("tokens per document, most", "%d", func(i SplitInfo, _ SplitReport) any { return i.LongestDocument })
	row("shards", "%d", func(_ SplitInfo, s SplitReport) any { return s.Files })
	row("row groups", "%d", func(_ SplitInfo, s SplitReport) any { return s.RowGroups })
	row("tokens per row group, most", "%d", func(_ SplitInfo, s SplitReport) any { return s.LargestRowGroup })
	row("bytes of files", "%d", func(_ SplitInfo, s SplitReport) any { return s.FileBytes })
	row("text / files", "%.2f", func(_ SplitInfo, s SplitReport) any { return s.CompressionRatio })
	if r.UnigramBitsPerByte != nil {
		line("")
		line("single-byte frequencies of train give validation %.4f bits per byte", *r.UnigramBitsPerByte)
	}
	return out.Flush()
}

func list(patterns []string, none string) string {
	if len(patterns) == 0 {
		return none
	}
	return strings.Join(patterns, ", ")
}
