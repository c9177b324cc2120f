package data

// vocabulary says what an id stands for, and which ids represent text that no piece has. Tokenizers
// from files embed it.
type vocabulary struct {
	info    TokenizerInfo
	pieces  [][]byte // the text of each id; nil for special tokens
	exports map[string][]byte

	bytes   [256]int32 // id of each byte, in a byte-level vocabulary or as byte fallback; or none
	unknown int32      // stands for characters that have neither symbol nor bytes; or none
	fuse    bool       // one unknown for a run of such characters
}

const none = int32(-1)

func (v *vocabulary) Name() string                   { return v.info.Name }
func (v *vocabulary) VocabSize() int                 { return v.info.VocabSize }
func (v *vocabulary) EOS() int32                     { return v.info.EOS }
func (v *vocabulary) Fingerprint() string            { return v.info.Fingerprint }
func (v *vocabulary) ExportFiles() map[string][]byte { return v.exports }

func (v *vocabulary) rename(name string) { v.info.Name = name }

func (v *vocabulary) Decode(dst []byte, ids []int32) []byte {
	for _, id := range ids {
		if uint32(id) < uint32(len(v.pieces)) {
			dst = append(dst, v.pieces[id]...)
		}
	}
	return dst
}

func (v *vocabulary) TokenBytes(id int32) int {
	if uint32(id) < uint32(len(v.pieces)) {
		return len(v.pieces[id])
	}
	return 0
}

// appendUnknown appends the ids of text that no piece has: those of its bytes if all have one,
// otherwise the unknown. afterUnknown says that the previous id also stands for such text; the
// result says the same of the last appended id.
func (v *vocabulary) appendUnknown(dst []int32, text []byte, afterUnknown bool) ([]int32, bool) {
	if v.hasBytes(text) {
		for _, b := range text {
			dst = append(dst, v.bytes[b])
		}
		return dst, false
	}
	if !v.fuse || !afterUnknown {
		dst = append(dst, v.unknown)
	}
	return dst, true
}

func (v *vocabulary) hasBytes(text []byte) bool {
	for _, b := range text {
		if v.bytes[b] < 0 {
			return false
		}
	}
	return true
}
