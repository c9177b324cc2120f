package data

import (
	"slices"

	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// hfCanSay reports whether a tokenizer.json can reproduce a model's ids. Hugging Face's libraries
// normalize text differently from SentencePiece, split it at user-defined symbols before they put
// the dummy space in front, and only merge pieces that have an id.
func (t *bpe) hfCanSay(m *sentencepiece.Model, merges []spMerge) bool {
	return len(m.CharsMap) == 0 && !m.RemoveSpaces && !(m.WhitespaceSuffix && m.DummyPrefix) && !t.after.any &&
		!slices.ContainsFunc(merges, func(x spMerge) bool { return x.left >= t.internal || x.right >= t.internal })
}

// hfFiles returns a tokenizer.json that gives the ids of a BPE model, and its
// tokenizer_config.json.
func hfFiles(m *sentencepiece.Model, merges []spMerge) map[string][]byte {
	vocab := map[string]int{}
	added := []any{}
	unknown := ""
	for id, p := range m.Pieces {
		vocab[p.Text] = id
		switch p.Kind {
		case sentencepiece.Unknown:
			unknown = p.Text
		case sentencepiece.Control:
		default:
			continue
		}
		added = append(added, specialToken(id, p.Text))
	}
	pairs := make([][2]string, len(merges))
	for i, x := range merges {
		pairs[i] = [2]string{m.Pieces[x.left].Text, m.Pieces[x.right].Text}
	}
	replace := func(from, to string) map[string]any {
		return map[string]any{"type": "Replace", "pattern": map[string]any{"String": from}, "content": to}
	}
	normalizers := []any{replace(" ", metaspace)}
	decoders := []any{replace(metaspace, " "), map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"}}
	if m.DummyPrefix {
		normalizers = append([]any{map[string]any{"type": "Prepend", "prepend": metaspace}}, normalizers...)
		decoders = append(decoders, map[string]any{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	tokenizer := tokenizerFile(map[string]any{
		"added_tokens": added,
		"normalizer":   map[string]any{"type": "Sequence", "normalizers": normalizers},
		"decoder":      map[string]any{"type": "Sequence", "decoders": decoders},
	}, map[string]any{"unk_token": unknown, "fuse_unk": true, "byte_fallback": m.ByteFallback, "vocab": vocab, "merges": pairs})
	config := map[string]any{
		"tokenizer_class":              "PreTrainedTokenizerFast",
		"eos_token":                    m.Pieces[m.EOS].Text,
		"unk_token":                    unknown,
		"clean_up_tokenization_spaces": false,
	}
	return map[string][]byte{tokenizerJSON: tokenizer, tokenizerConfig: mustJSON(config)}
}
